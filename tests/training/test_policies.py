"""Policies: their log-probabilities against one sequence at a time, spellings against enumeration, and bad models."""

import dataclasses
import itertools
import json
import shutil

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from grpo_dynamics.training.policies import (
    LoraOptions,
    Policy,
    load_policy,
    log_probs,
    log_probs_of_groups,
    next_log_probs,
    right_completions,
    shared_log_probs,
)
from grpo_dynamics.training.sources.tokenizers import character_tokenizer
from grpo_dynamics.training.tasks import Question

PROMPTS = [[1, 3], [1, 4, 5, 3], [1, 5, 5]]


def llama(vocabulary: int, hidden: int = 32) -> LlamaForCausalLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=32,
            tie_word_embeddings=True,
            initializer_range=0.5,  # far from uniform
        )
        return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def policy():
    tokenizer = character_tokenizer(["0123"])
    return Policy(llama(len(tokenizer)).double(), tokenizer)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("models") / "small"
    tokenizer = character_tokenizer(["0123+="])
    llama(len(tokenizer)).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def some_completions(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    completions = torch.randint(0, 7, (3, 4, 5), generator=generator)
    lengths = torch.randint(1, 6, (3, 4, 1), generator=generator)
    return completions, torch.arange(5) < lengths


def one_at_a_time(model, prompt: list[int], completion: list[int]) -> torch.Tensor:
    """The definition: log π(y_t | x, y_<t), the whole sequence alone in its batch."""
    ids = torch.tensor([[*prompt, *completion]])
    everything = model(input_ids=ids).logits[0].log_softmax(-1)
    return torch.stack([everything[len(prompt) + t - 1, token] for t, token in enumerate(completion)])


def test_log_probs_are_those_of_each_sequence_alone(policy):
    completions, mask = some_completions()
    owner = [q for q in range(3) for _ in range(4)]
    flat, there = completions.reshape(12, 5), mask.reshape(12, 5)
    found = log_probs(policy.model, [PROMPTS[q] for q in owner], flat, there)
    for row, q in enumerate(owner):
        length = int(there[row].sum())
        alone = one_at_a_time(policy.model, PROMPTS[q], flat[row, :length].tolist())
        torch.testing.assert_close(found[row, :length], alone, rtol=0, atol=1e-12)
        assert (found[row, length:] == 0).all()


@pytest.mark.parametrize("prompts", [PROMPTS, [[1, 3, 4]] * 3], ids=["padded", "of one length"])
@pytest.mark.parametrize("length", [1, 5])
def test_prompts_shared_by_their_group_change_neither_values_nor_gradients(policy, prompts, length):
    completions, mask = (part[..., :length] for part in some_completions())
    weights = torch.linspace(-1, 2, 12 * length, dtype=torch.float64).reshape(3, 4, length)
    apart = log_probs(
        policy.model,
        [prompt for prompt in prompts for _ in range(4)],
        completions.reshape(12, length),
        mask.reshape(12, length),
    ).reshape(3, 4, length)
    shared = log_probs_of_groups(policy.model, prompts, completions, mask)
    torch.testing.assert_close(shared, apart, rtol=0, atol=1e-12)
    parameters = list(policy.model.parameters())
    gradients = [torch.autograd.grad((weights * found).sum(), parameters) for found in (apart, shared)]
    for first, second in zip(*gradients, strict=True):  # a Llama normalises in float32, whatever its weights are
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)


def test_a_prompt_may_have_any_number_of_completions(policy):
    completions, mask = (part.reshape(12, 5)[:4] for part in some_completions(1))
    owner = [2, 0, 2, 2]  # prompt 1 has none
    found = shared_log_probs(policy.model, PROMPTS, completions, mask, owner)
    expected = log_probs(policy.model, [PROMPTS[q] for q in owner], completions, mask)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_next_tokens_make_up_completions_by_the_chain_rule(policy):
    completion = [4, 6, 2]
    prefixes = [PROMPTS[1] + completion[:t] for t in range(3)]
    following = next_log_probs(policy.model, prefixes)
    assert following.shape == (3, 7)
    torch.testing.assert_close(following.exp().sum(-1), torch.ones(3, dtype=torch.float64))
    expected = log_probs(policy.model, [PROMPTS[1]], torch.tensor([completion]), torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(following[range(3), completion], expected[0], rtol=0, atol=1e-12)


def every_completion(policy: Policy, length: int) -> list[list[int]]:
    """All that can be said in so many tokens: an end token ends, else it is cut off."""
    tokens = [token for token in range(policy.vocabulary) if token != policy.eos_id]
    ended = [[*start, policy.eos_id] for n in range(length) for start in itertools.product(tokens, repeat=n)]
    return [*ended, *map(list, itertools.product(tokens, repeat=length))]


def probability(policy: Policy, completions: list[list[int]]) -> float:
    width = max(map(len, completions))
    padded = torch.tensor([[*ids, *[policy.pad_id] * (width - len(ids))] for ids in completions])
    mask = torch.arange(width) < torch.tensor([[len(ids)] for ids in completions])
    with torch.no_grad():
        found = shared_log_probs(policy.model, [PROMPTS[0]], padded, mask, [0] * len(completions))
    return float(found.sum(1).exp().sum())


def test_all_completions_together_have_probability_one(policy):
    """Ended and cut-off ones: the outcome space over which p is a sum."""
    assert probability(policy, every_completion(policy, 3)) == pytest.approx(1, abs=1e-12)


def subword_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    tokens = {"<pad>": 0, "<eos>": 1, "1": 2, "2": 3, "12": 4, "▁": 5, "▁1": 6, "▁12": 7}
    if kind == "bytes":
        tokens = {token.replace("▁", "Ġ"): number for token, number in tokens.items()}
    space = "▁" if kind == "sentencepiece" else "Ġ"
    merges = [("1", "2"), (space, "1"), (space, "12")]
    tokenizer = Tokenizer(models.BPE(tokens, merges))
    if kind == "bytes":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


@pytest.mark.parametrize("kind", ["bytes", "sentencepiece"])
def test_every_spelling_of_a_right_answer_counts(kind):
    """p sums over token sequences, and "12" is two tokens or one. All completions, enumerated, say which are right."""
    subwords = Policy(llama(8).double(), subword_tokenizer(kind))
    question = Question("q", "1", "12", correct=("12", "1 2"))
    found = right_completions(subwords, question, 3)
    everything = every_completion(subwords, 3)
    expected = [ids for ids, text in zip(everything, subwords.decode(everything), strict=True) if text in ("12", "1 2")]
    assert len(found) == {"bytes": 3, "sentencepiece": 8}[kind]
    assert found == sorted(expected)
    assert probability(subwords, found) == pytest.approx(probability(subwords, expected), rel=1e-12)


def test_right_completions_end_unless_they_are_cut_off(policy):
    question = Question("q", "1+1=", "2", correct=("2", "02", "002", "0002"))
    assert right_completions(policy, question, 3) == [[3, 3, 5], [3, 5, 2], [5, 2]]
    with pytest.raises(ValueError, match="correct must be a finite set of answers, got None for the question 'x'"):
        right_completions(policy, Question("q", "x", "2"), 3)


def test_texts_end_with_the_end_token_and_hide_nothing(policy):
    ids = policy.encode(["12"])[0]
    assert ids == [1, 4, 5]
    assert policy.decode([[4, 5, 2, 0, 0], [4, 1, 5], [4, 0, 5, 2], []]) == ["12", "1<bos>2", "1<pad>2", ""]
    wider = Policy(llama(9), policy.tokenizer)  # logits beyond the tokenizer's tokens, as padded vocabularies have them
    assert wider.decode([[4, 8, 5]]) == ["12\ufffd"]


def test_bad_tokenizers_are_named(policy):
    policy.check(["0123", "31"])
    with pytest.raises(ValueError, match=r"text must be one that the tokenizer can read, got '1 \+'"):
        policy.check(["1 +"])
    with pytest.raises(ValueError, match="at most the model's 5 tokens, got 7"):
        Policy(llama(5), policy.tokenizer).check()
    raw = Tokenizer(models.WordLevel({"a": 0, "b": 1, "<unk>": 2}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    raw.normalizer, raw.decoder = normalizers.Lowercase(), decoders.Fuse()
    bare = PreTrainedTokenizerFast(tokenizer_object=raw)
    with pytest.raises(ValueError, match=r"must have a pad token \(the end token serves as well\), got none: name one"):
        Policy(llama(3), bare).check()
    bare.pad_token = "a"
    with pytest.raises(ValueError, match="must have a eos token"):
        Policy(llama(3), bare).check()
    bare.eos_token = "b"
    with pytest.raises(ValueError, match="must give back every text as it was, got 'a' for 'A'"):
        Policy(llama(3), bare).check(["A"])


def test_what_is_saved_is_loaded(folder, capfd):
    loaded = load_policy(folder, device="cpu")
    assert capfd.readouterr().err == ""  # no bars where there is no terminal
    assert loaded.device == torch.device("cpu")
    assert loaded.model.dtype == torch.float32
    assert (loaded.pad_id, loaded.eos_id, loaded.vocabulary) == (0, 2, 9)
    completions, mask = (part.reshape(12, 5) for part in some_completions())
    prompts = [[1, 3]] * 12
    expected = log_probs(llama(9), prompts, completions, mask)
    torch.testing.assert_close(log_probs(loaded.model, prompts, completions, mask), expected, rtol=0, atol=0)
    half = load_policy(str(folder), dtype="bfloat16", device="cpu")
    found = log_probs(half.model, prompts, completions, mask)
    assert found.dtype == torch.float32
    assert 0 < (found - expected).abs().max() < 0.5  # 8 bits of a logit of a few units


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # of peft 0.21
def test_adapters_alone_are_trained_and_checkpointing_changes_nothing(folder):
    plain = load_policy(folder, device="cpu")
    adapted = load_policy(folder, device="cpu", lora=LoraOptions(rank=2))
    names = [name for name, weight in adapted.model.named_parameters() if weight.requires_grad]
    assert names
    assert all("lora_" in name for name in names)
    completions, mask = some_completions()
    completions = completions.clamp(max=8)
    before = log_probs_of_groups(plain.model, PROMPTS, completions, mask)
    torch.testing.assert_close(log_probs_of_groups(adapted.model, PROMPTS, completions, mask), before)  # B = 0 at first
    adapted.check(["1+1=", "2"])

    saving = load_policy(folder, device="cpu", gradient_checkpointing=True)
    gradients = []
    for policy in (plain, saving):
        log_probs_of_groups(policy.model, PROMPTS, completions, mask).sum().backward()
        gradients.append([weight.grad for weight in policy.model.parameters()])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)


def test_a_model_with_dropout_is_trained_without(tmp_path):
    """GPT-2's config has dropout 0.1: in train mode, as checkpointing needs it, π would differ from call to call."""
    tokenizer = character_tokenizer(["0123"])
    config = GPT2Config(vocab_size=7, n_embd=32, n_layer=1, n_head=2, n_positions=16, bos_token_id=1, eos_token_id=2)
    assert config.attn_pdrop > 0
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    policy = load_policy(tmp_path, device="cpu", gradient_checkpointing=True)
    assert policy.model.training
    first, second = (next_log_probs(policy.model, PROMPTS) for _ in range(2))
    assert torch.equal(first, second)


def test_a_token_can_serve_as_pad(folder, tmp_path):
    for file in folder.iterdir():
        text = file.read_bytes()
        if file.name == "tokenizer_config.json":
            settings = json.loads(text)
            del settings["pad_token"]
            text = json.dumps(settings).encode()
        (tmp_path / file.name).write_bytes(text)
    with pytest.raises(ValueError, match=r"must have a pad token .* name one as pad_token"):
        load_policy(tmp_path, device="cpu")
    assert load_policy(tmp_path, device="cpu", pad_token="<eos>").pad_id == 2
    with pytest.raises(ValueError, match="pad_token must be one of the tokenizer's tokens, got '<end>'"):
        load_policy(tmp_path, device="cpu", pad_token="<end>")


def test_models_and_devices_that_are_not_here_are_named(folder, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"model must be a folder that exists, got '.*smal'; the nearest is 'small'"):
        load_policy(folder.parent / "smal")
    with pytest.raises(ValueError, match=r"model must be a causal language model on the hub or in a folder, got '/"):
        load_policy(tmp_path)  # empty
    torn = tmp_path / "torn"
    shutil.copytree(folder, torn)
    (torn / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"model must be a causal language model .*torn': .*header"):
        load_policy(torn)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"model must be .*, got 'no-such-house/no-such-model': .") as raised:
        load_policy("no-such-house/no-such-model")
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match=r"dtype must be one of 'float32', .*, got 'float8'"):
        load_policy(folder, dtype="float8")
    with pytest.raises(ValueError, match="chat must be False for a tokenizer without a chat template, got True"):
        load_policy(folder, chat=True)
    with pytest.raises(ValueError, match="targets must name layers of the model, got 'nothing'"):
        load_policy(folder, lora=LoraOptions(targets="nothing"))
    for name in ("cuda:77", "gpu"):
        with pytest.raises(ValueError, match=rf"device must be one that is here \(cpu.*\), got '{name}'"):
            load_policy(folder, device=name)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(ValueError, match=r"device must be one that is here \(cpu\), got 'cuda'"):
        load_policy(folder, device="cuda")


@pytest.mark.parametrize("options", [{"rank": 0}, {"rank": 1.5}, {"alpha": 0.0}, {"dropout": 1.0}])
def test_adapters_are_checked(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        LoraOptions(**options)
    assert dataclasses.replace(LoraOptions(), rank=4).rank == 4


def test_chat_templates_wrap_prompts():
    tokenizer = character_tokenizer(["0123u:a\n"])
    tokenizer.chat_template = (
        "{% for m in messages %}u:{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
    )
    policy = Policy(llama(len(tokenizer)), tokenizer, chat=True)
    assert policy.tokenizer.decode(policy.encode(["12"])[0]).removeprefix("<bos>") == "u:12a:"
