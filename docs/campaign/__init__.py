"""The page of the campaign, made from the committed results: which there are, the goals, and the tables."""
