"""Where tasks come from: data sets, puzzles, and the corpus and tokenizer of a model that is made on the spot."""
