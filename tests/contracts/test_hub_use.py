"""A generator in the hands of someone who knows transformers and nothing of this package."""

from __future__ import annotations

import threading

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    GPT2Config,
    GPT2LMHeadModel,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
    TextIteratorStreamer,
    pipeline,
)

from seqgan_hf.data import GrammarData
from seqgan_hf.models import (
    LeakGeneratorConfig,
    LeakGeneratorForCausalLM,
    RelationalMemoryConfig,
    RelationalMemoryForCausalLM,
    RNNGeneratorConfig,
    RNNGeneratorForCausalLM,
)
from seqgan_hf.models.modeling_base import cache_of


@pytest.fixture(scope="module")
def tokenizer():
    return GrammarData(num_train=5, num_eval=5).load().tokenizer


@pytest.fixture(scope="module", params=["lstm", "memory", "leak"])
def model(request, tokenizer) -> PreTrainedModel:
    torch.manual_seed(0)
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    tokens |= {"vocab_size": len(tokenizer), "embedding_size": 16}
    if request.param == "memory":
        model = RelationalMemoryForCausalLM(RelationalMemoryConfig(**tokens, head_size=8)).eval()
        torch.nn.init.normal_(model.model.embed_tokens.weight)
    elif request.param == "leak":
        features = {"embedding_size": 8, "filter_sizes": [1, 2, 3], "num_filters": [4, 4, 4]}
        sizes = {"hidden_size": 16, "goal_size": 4, "initializer_range": 0.5, "discriminator_config": features}
        model = LeakGeneratorForCausalLM(LeakGeneratorConfig(**sizes, **tokens)).eval()
    else:
        sizes = {"hidden_size": 16, "num_hidden_layers": 2}
        model = RNNGeneratorForCausalLM(RNNGeneratorConfig(**sizes, **tokens, initializer_range=0.5)).eval()
    model.generation_config.update(do_sample=True, top_k=0, max_new_tokens=12)
    return model


@pytest.fixture(scope="module")
def transformer(tokenizer) -> GPT2LMHeadModel:
    """A model of the same vocabulary whose cache can be cut back."""
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    tokens["vocab_size"] = len(tokenizer)
    return GPT2LMHeadModel(GPT2Config(n_positions=64, n_embd=8, n_layer=1, n_head=1, **tokens)).eval()


@pytest.fixture(scope="module")
def start(tokenizer):
    return tokenizer("the", return_tensors="pt")


def written(model, start, **options) -> list[int]:
    """The new tokens of one sample."""
    torch.manual_seed(1)
    return model.generate(**start, **options)[0, start["input_ids"].shape[1] :].tolist()


# --- generate --------------------------------------------------------------------------------------------------------


class Only(LogitsProcessor):
    """Lets one token through."""

    def __init__(self, token_id: int):
        self.token_id = token_id

    def __call__(self, input_ids, scores):
        kept = torch.full_like(scores, -torch.inf)
        kept[:, self.token_id] = scores[:, self.token_id]
        return kept


class AtWidth(StoppingCriteria):
    def __init__(self, width: int):
        self.width = width

    def __call__(self, input_ids, scores, **options):
        return torch.full((len(input_ids),), input_ids.shape[1] >= self.width, dtype=torch.bool)


def test_a_logits_processor_decides(model, start):
    assert written(model, start, logits_processor=LogitsProcessorList([Only(9)]), max_new_tokens=4) == [9] * 4


def test_a_stopping_criterion_stops(model, start):
    stop = StoppingCriteriaList([AtWidth(5)])
    assert len(written(model, start, stopping_criteria=stop, min_new_tokens=10)) == 3


def test_bad_words_are_not_written(model, start, tokenizer):
    assert set(written(model, start, max_new_tokens=40)) - {5, 6}
    bad = [[token] for token in range(len(tokenizer)) if token not in (5, 6)]
    allowed = written(model, start, bad_words_ids=bad, min_new_tokens=20, max_new_tokens=20)
    assert set(allowed) == {5, 6}  # transformers lets the end token through in any case, but not before token 20


def test_a_repetition_penalty_ends_repetition(model, start):
    options = {"do_sample": False, "max_new_tokens": 20, "suppress_tokens": [0, 1, 2]}
    alone, penalized = written(model, start, **options), written(model, start, repetition_penalty=50.0, **options)
    assert len(set(alone)) < len(alone) and len(set(penalized)) == len(penalized)


def test_length_can_be_bounded_from_both_sides(model, start, tokenizer):
    ends = [written(model, start, max_new_tokens=30, bad_words_ids=[[t] for t in range(3, 100)])]
    assert tokenizer.eos_token_id in ends[0] and len(ends[0]) < 30
    for length in (1, 13):
        exact = written(model, start, min_new_tokens=length, max_new_tokens=length)
        assert len(exact) == length and tokenizer.eos_token_id not in exact[:-1]


@pytest.mark.parametrize("kind", ["ours", "theirs", "lookup"])
def test_it_cannot_be_assisted(kind, model, transformer, start):
    helpers = {"ours": {"assistant_model": model}, "theirs": {"assistant_model": transformer}}
    options = (helpers | {"lookup": {"prompt_lookup_num_tokens": 2}})[kind]
    with pytest.raises(ValueError, match="assisted generation is not supported with stateful models"):
        model.generate(**start, **options)


def test_it_cannot_assist(model, transformer, start):
    with pytest.raises(ValueError, match="a generator with a state in assisted decoding: expected .*. Leave"):
        transformer.generate(**start, assistant_model=model, do_sample=False, max_new_tokens=2)
    state = model(**start, use_cache=True).past_key_values
    with pytest.raises(ValueError, match="a generator with a state in assisted decoding"):
        state.crop(1)


def test_beams_of_all_kinds(model, start):
    torch.manual_seed(0)
    beams = model.generate(**start, num_beams=3, num_return_sequences=3, do_sample=False)
    assert beams.shape[0] == 3 and len({tuple(beam) for beam in beams.tolist()}) == 3
    assert model.generate(**start, num_beams=2, no_repeat_ngram_size=1).shape[0] == 1


# --- Pipelines -------------------------------------------------------------------------------------------------------


def test_the_text_generation_pipeline(model, tokenizer):
    write = pipeline("text-generation", model=model, tokenizer=tokenizer)
    assert len(write("", num_return_sequences=3)) == 3
    (continued,) = write("the dog")
    assert continued["generated_text"].startswith("the dog")
    options = {"do_sample": False, "max_new_tokens": 6}
    prompts = ["the", "a small dog", ""]
    if model.config.model_type == "leak_generator":
        with pytest.raises(ValueError, match="padding before a real token: expected prompts of one length"):
            write(prompts, batch_size=3, **options)
        prompts = ["the dog", "a cat", "every dog"]
    together = [texts[0]["generated_text"] for texts in write(prompts, batch_size=3, **options)]
    assert together == [write(prompt, **options)[0]["generated_text"] for prompt in prompts]


def test_text_streams_as_it_is_written(model, tokenizer, start):
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    options = {"do_sample": False, "max_new_tokens": 8}
    thread = threading.Thread(target=model.generate, kwargs={**start, **options, "streamer": streamer})
    thread.start()
    pieces = list(streamer)
    thread.join()
    whole = tokenizer.decode(written(model, start, **options), skip_special_tokens=True)
    assert "".join(pieces) == whole and len([piece for piece in pieces if piece]) > 1


# --- Ways to load, and what else is done to models -------------------------------------------------------------------


def test_ways_to_load(model, start, tmp_path):
    model.save_pretrained(tmp_path)
    placed = AutoModelForCausalLM.from_pretrained(tmp_path, device_map="auto")
    torch.testing.assert_close(placed(**start.to(placed.device)).logits.cpu(), model(**start).logits)
    half = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16 and half.generate(**start.to(half.device)).shape[1] > 2
    torch.testing.assert_close(half(**start).logits.float(), model(**start).logits, atol=0.05, rtol=0.05)


def test_compiled_it_computes_the_same(model, start):
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(compiled(**start).logits, model(**start).logits)
    options = {"do_sample": False, "max_new_tokens": 3}
    assert compiled.generate(**start, **options).tolist() == model.generate(**start, **options).tolist()


LORA = {
    "output": {"target_modules": ["lm_head"]},
    "recurrent": {"target_modules": [], "target_parameters": ["layers.0.weight_ih_l0", "layers.1.weight_hh_l0"]},
    "all": {
        "target_modules": ["lm_head", "embed_tokens"],
        "target_parameters": [f"layers.{layer}.weight_{kind}_l0" for layer in (0, 1) for kind in ("ih", "hh")],
    },
}


@pytest.mark.parametrize("cell_type", ["lstm", "gru"])
@pytest.mark.parametrize("part", LORA)
def test_lora(part, cell_type, tokenizer, tmp_path):
    """It changes nothing at first, learns, is saved and loaded alone, and can be merged; batches are padded."""
    peft = pytest.importorskip("peft", minversion="0.20")
    torch.manual_seed(0)
    sizes = {"vocab_size": len(tokenizer), "embedding_size": 8, "hidden_size": 12, "num_hidden_layers": 2}
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = RNNGeneratorConfig(cell_type=cell_type, initializer_range=0.5, **sizes, **tokens)
    base = RNNGeneratorForCausalLM(config).eval()
    base.save_pretrained(tmp_path / "base")
    batch = tokenizer(["the small dog", "a"], return_tensors="pt", padding=True)
    before = base(**batch).logits
    adapted = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", r=2, **LORA[part]))
    torch.testing.assert_close(adapted(**batch).logits, before)
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    start = [parameter.clone() for parameter in trained]
    optimizer = torch.optim.Adam(trained, 0.1)
    for _ in range(4):
        adapted.train()(**batch, labels=batch["input_ids"]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert all((now != then).any() for now, then in zip(trained, start, strict=True))
    after, options = adapted.eval()(**batch).logits, {"do_sample": False, "max_new_tokens": 6}
    assert (after - before).abs().max() > 0.01
    adapted.save_pretrained(tmp_path / "lora")
    again = peft.PeftModel.from_pretrained(
        RNNGeneratorForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "lora"
    )
    torch.testing.assert_close(again.eval()(**batch).logits, after)
    written = adapted.generate(**batch, **options).tolist()
    merged = adapted.merge_and_unload()
    torch.testing.assert_close(merged(**batch).logits, after)
    assert type(merged) is RNNGeneratorForCausalLM and merged.generate(**batch, **options).tolist() == written


@pytest.mark.parametrize("name", ["past_key_values", "cache"])
def test_the_state_is_read_by_either_name_of_a_cache(model, name):
    """transformers calls it `past_key_values` up to 5.23, then `cache`."""
    ids, trunk = torch.tensor([[3, 4, 5, 6]]), model.base_model
    for read, output in ((model, lambda given: given.logits), (trunk, lambda given: given.last_hidden_state)):
        state = cache_of(read(ids[:, :3], use_cache=True))
        torch.testing.assert_close(output(read(ids[:, 3:], **{name: state})), output(read(ids))[:, 3:])


def test_a_cache_of_another_kind_is_refused(model, start):
    with pytest.raises(ValueError, match="a cache of type DynamicCache: expected the StateCache"):
        model.generate(**start, past_key_values=DynamicCache())
