"""What every model of the package must do among the Hugging Face libraries: one matrix over all of them."""

import json
import os
import subprocess
import sys
from functools import partial

import accelerate
import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from packaging.version import Version
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
    pipeline,
)

from seqgan_hf.models import (
    CNNDiscriminatorConfig,
    CNNDiscriminatorForSequenceClassification,
    LeakGeneratorConfig,
    LeakGeneratorForCausalLM,
    RelationalMemoryConfig,
    RelationalMemoryForCausalLM,
    RelationalMemoryModel,
    RelGANDiscriminatorConfig,
    RelGANDiscriminatorForSequenceClassification,
    RNNDiscriminatorConfig,
    RNNDiscriminatorForSequenceClassification,
    RNNGeneratorConfig,
    RNNGeneratorForCausalLM,
    RNNGeneratorModel,
)


WORDS = ["<pad>", "<bos>", "<eos>", "<unk>", "a", "man", "rides", "the", "horse", "on", "beach", "two"]
SIZES = {"vocab_size": len(WORDS), "embedding_size": 8, "pad_token_id": 0}
GENERATOR = partial(RNNGeneratorConfig, **SIZES, hidden_size=8, bos_token_id=1, eos_token_id=2)
CNN = partial(CNNDiscriminatorConfig, **SIZES, filter_sizes=[1, 2, 5], num_filters=[3, 4, 5])
RNN = partial(RNNDiscriminatorConfig, **SIZES, hidden_size=8)
MEMORY = partial(RelationalMemoryConfig, **SIZES, head_size=4, bos_token_id=1, eos_token_id=2)
RELGAN = partial(
    RelGANDiscriminatorConfig, **SIZES, num_representations=4, filter_sizes=[2, 3], num_filters=[3, 4], hidden_size=5
)
LEAK = partial(
    LeakGeneratorConfig,
    **SIZES,
    hidden_size=8,
    goal_size=3,
    goal_steps=2,
    discriminator_config={"embedding_size": 4, "filter_sizes": [1, 2, 5], "num_filters": [3, 4, 5]},
    bos_token_id=1,
    eos_token_id=2,
)
CAUSAL, CLASSIFIER = AutoModelForCausalLM, AutoModelForSequenceClassification

MODELS = {
    "generator_lstm": (CAUSAL, RNNGeneratorForCausalLM, GENERATOR),
    "generator_gru": (CAUSAL, RNNGeneratorForCausalLM, partial(GENERATOR, cell_type="gru", num_hidden_layers=2)),
    "generator_tied": (CAUSAL, RNNGeneratorForCausalLM, partial(GENERATOR, tie_word_embeddings=True)),
    "memory": (CAUSAL, RelationalMemoryForCausalLM, MEMORY),
    "memory_by_row": (
        CAUSAL,
        RelationalMemoryForCausalLM,
        partial(MEMORY, mem_slots=2, num_blocks=2, layer_norm="row"),
    ),
    "leak": (CAUSAL, LeakGeneratorForCausalLM, LEAK),
    "cnn": (CLASSIFIER, CNNDiscriminatorForSequenceClassification, CNN),
    "cnn_one_logit": (CLASSIFIER, CNNDiscriminatorForSequenceClassification, partial(CNN, num_labels=1)),
    "relgan": (CLASSIFIER, RelGANDiscriminatorForSequenceClassification, RELGAN),
    "relgan_normed": (CLASSIFIER, RelGANDiscriminatorForSequenceClassification, partial(RELGAN, spectral_norm=True)),
    "rnn": (CLASSIFIER, RNNDiscriminatorForSequenceClassification, RNN),
    "rnn_both_ways": (CLASSIFIER, RNNDiscriminatorForSequenceClassification, partial(RNN, bidirectional=True)),
    "rnn_per_token": (CLASSIFIER, RNNDiscriminatorForSequenceClassification, partial(RNN, per_token=True)),
}
EVERY_MODEL = pytest.mark.parametrize("name", MODELS)
IDS = torch.tensor([[1, 4, 5, 6], [1, 7, 2, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])


def make(name, dtype=torch.float32):
    torch.manual_seed(0)
    auto, _, config = MODELS[name]
    return auto.from_config(config()).to(dtype).eval()


@pytest.fixture
def tokenizer():
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", padding_side="left"
    )


@EVERY_MODEL
def test_saved_and_loaded_it_is_the_same_to_the_bit(name, tmp_path):
    auto, model_class, _ = MODELS[name]
    model = make(name)
    for parameter in model.parameters():  # nothing may come from the initialization
        parameter.data.normal_()
    model.save_pretrained(tmp_path)
    for loaded in (auto.from_pretrained(tmp_path), model_class.from_pretrained(tmp_path)):
        assert type(loaded) is model_class and not loaded.training
        # The last bit of a product depends on where in memory its weights lie; the weights are equal to the bit.
        logits = loaded(IDS, attention_mask=MASK).logits
        torch.testing.assert_close(logits, model(IDS, attention_mask=MASK).logits, atol=1e-6, rtol=1e-6)
        assert loaded.state_dict().keys() == model.state_dict().keys()
        assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))
    config = AutoConfig.from_pretrained(tmp_path)
    assert config.to_diff_dict().items() >= MODELS[name][2]().to_diff_dict().items()


@EVERY_MODEL
def test_a_missing_weight_is_initialized_and_the_others_are_left_alone(name, tmp_path):
    model = make(name)
    for value in model.state_dict().values():
        value.fill_(0.5)
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    missing = next(key for key in state if "weight_hh" in key or "filters.1.weight" in key or "qkv_weight" in key)
    del state[missing]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = MODELS[name][0].from_pretrained(tmp_path)
    for key, value in loaded.state_dict().items():
        assert torch.isfinite(value).all() and (value == 0.5).all().item() == (key != missing), key


@EVERY_MODEL
def test_bfloat16(name, tmp_path):
    auto, _, _ = MODELS[name]
    model = make(name)
    model.save_pretrained(tmp_path)
    loaded = auto.from_pretrained(tmp_path, dtype=torch.bfloat16)
    logits = loaded(IDS, attention_mask=MASK).logits
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), model(IDS, attention_mask=MASK).logits, atol=0.05, rtol=0.05)
    logits.sum().backward()
    if auto is CAUSAL:
        assert loaded.generate(IDS[:1], max_new_tokens=3, do_sample=False).shape[1] > 4


@pytest.mark.skipif(Version(accelerate.__version__) < Version("1.15"), reason="accelerate keeps a part in memory")
@EVERY_MODEL
def test_weights_can_stay_on_disk_until_they_are_needed(name, tmp_path):
    """What `device_map="auto"` does where memory is short: every parameter has to be reached by calling its module."""
    auto, _, _ = MODELS[name]
    model = make(name)
    model.save_pretrained(tmp_path)
    loaded = auto.from_pretrained(tmp_path, device_map={"": "disk"}, offload_folder=tmp_path / "offload")
    assert all(parameter.device.type == "meta" for parameter in loaded.parameters())
    logits = loaded(IDS, attention_mask=MASK).logits
    torch.testing.assert_close(logits, model(IDS, attention_mask=MASK).logits)
    if auto is CAUSAL:
        padded = MASK.new_ones(MASK.shape) if name == "leak" else MASK.flip(1)  # it refuses padded prompts
        options = {"attention_mask": padded, "max_new_tokens": 3, "do_sample": False}
        assert loaded.generate(IDS, **options).tolist() == model.generate(IDS, **options).tolist()


# the features of a discriminator know no other tokens
@pytest.mark.parametrize("name", [name for name in MODELS if name != "leak"])
def test_the_vocabulary_grows_and_shrinks(name):
    model = make(name)
    before = model(IDS, attention_mask=MASK).logits
    model.resize_token_embeddings(20, mean_resizing=False)
    assert model.config.vocab_size == model.get_input_embeddings().num_embeddings == 20
    after = model(IDS, attention_mask=MASK).logits
    torch.testing.assert_close(after[..., : before.shape[-1]], before)
    assert model(torch.full((1, 3), 19)).logits.isfinite().all()
    if MODELS[name][0] is CAUSAL:
        assert after.shape[-1] == 20
    model.resize_token_embeddings(9)
    torch.testing.assert_close(model(IDS, attention_mask=MASK).logits, before[..., : after.shape[-1]][..., :9])


@pytest.mark.parametrize(("name", "kind"), [("generator_gru", RNNGeneratorModel), ("memory", RelationalMemoryModel)])
def test_the_trunk_loads_from_the_whole_generator(name, kind, tmp_path):
    model = make(name)
    model.save_pretrained(tmp_path)
    trunk = AutoModel.from_pretrained(tmp_path)
    assert type(trunk) is kind
    assert torch.equal(trunk(IDS).last_hidden_state, model.base_model(IDS).last_hidden_state)


@EVERY_MODEL
def test_gradients_reach_every_parameter(name):
    model = make(name).train()
    labels = IDS if MODELS[name][0] is CAUSAL else torch.tensor([0, 1])
    loss = model(IDS, attention_mask=MASK, labels=labels).loss
    if name == "leak":
        loss = loss + model.base_model.goals(IDS)[1].sum()  # what its Manager learns from
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_labels_are_named(tmp_path):
    for name, names in (
        ("cnn", ["FAKE", "REAL"]),
        ("relgan", ["FAKE", "REAL"]),
        ("rnn", ["FAKE", "REAL"]),
        ("cnn_one_logit", ["REAL"]),
    ):
        make(name).save_pretrained(tmp_path)
        assert AutoConfig.from_pretrained(tmp_path).id2label == dict(enumerate(names))
    for config in (CNN(num_labels=1), RELGAN(num_labels=1), RNN(num_labels=1)):
        assert (config.num_labels, config.id2label, config.label2id) == (1, {0: "REAL"}, {"REAL": 0})
    assert RNN(id2label={0: "machine", 1: "human"}).id2label == {0: "machine", 1: "human"}


THREE = {"id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}


@pytest.mark.parametrize("name", ["cnn", "relgan", "rnn", "rnn_both_ways", "rnn_per_token"])
@pytest.mark.parametrize("options", [{"num_labels": 3}, {"num_labels": 0}, THREE])
def test_a_discriminator_tells_real_from_fake_unless_its_labels_are_named(name, options, tmp_path):
    auto, model_class, config = MODELS[name]
    message = "num_labels=[03]: expected 2 .0 = fake, 1 = real., or 1 .*. Leave num_labels and id2label out"
    if options is THREE and name not in ("relgan", "rnn_per_token"):
        model_class(config(**options)).save_pretrained(tmp_path)
        loaded = auto.from_pretrained(tmp_path)
        assert loaded(IDS, attention_mask=MASK).logits.shape == (2, 3) and loaded.config.id2label == THREE["id2label"]
        return
    with pytest.raises(StrictDataclassClassValidationError, match=message):
        config(**options)
    model_class(config()).save_pretrained(tmp_path)
    for load in (auto, model_class):
        with pytest.raises(StrictDataclassClassValidationError, match=message):
            load.from_pretrained(tmp_path, **options, ignore_mismatched_sizes=True)


@pytest.mark.parametrize("name", ["generator_lstm", "memory"])
def test_text_generation_pipeline(name, tokenizer):
    model = make(name)
    write = pipeline("text-generation", model=model, tokenizer=tokenizer)
    options = {"max_new_tokens": 5, "do_sample": False, "return_full_text": False, "suppress_tokens": [0, 1, 2]}
    prompts = ["a man", "the", "two man rides"]
    alone = [write(prompt, **options)[0]["generated_text"] for prompt in prompts]
    batch = [texts[0]["generated_text"] for texts in write(prompts, batch_size=3, **options)]
    assert batch == alone and all(alone)
    assert len(write("", num_return_sequences=3, max_new_tokens=5, do_sample=True)) == 3


@pytest.mark.parametrize("name", ["cnn", "cnn_one_logit", "relgan", "rnn", "rnn_both_ways"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_text_classification_pipeline(name, side, tokenizer):
    model = make(name)
    tokenizer.padding_side = side
    judge = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    texts = ["a man rides the horse", "beach", "two man"]
    for text, verdict in zip(texts, judge(texts, batch_size=3, padding=True, top_k=None), strict=True):
        logits = model(tokenizer(text, return_tensors="pt")["input_ids"]).logits[0]
        scores = logits.sigmoid() if len(logits) == 1 else logits.softmax(0)
        got = {entry["label"]: entry["score"] for entry in verdict}
        assert got == pytest.approx(
            {model.config.id2label[i]: score.item() for i, score in enumerate(scores)}, abs=1e-6
        )


ALONE = """
import json, sys
sys.modules["seqgan_hf"] = None  # importing it is an error
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
answers = {}
for name, auto in json.loads(sys.argv[1]).items():
    model = globals()[auto].from_pretrained(name, trust_remote_code=True)
    ids, mask = torch.tensor([[1, 4, 5, 6], [1, 7, 2, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    answers[name] = [model(ids, attention_mask=mask).logits.flatten().tolist(), type(model).__module__]
    if auto == "AutoModelForCausalLM":
        answers[name].append(model.generate(ids[:1], max_new_tokens=5, do_sample=False).tolist())
print(json.dumps(answers))
"""


def test_saved_with_its_code_a_model_loads_without_the_package(tmp_path):
    folders, expected = {}, {}
    for name in ("generator_lstm", "memory", "leak", "cnn", "relgan_normed", "rnn_both_ways"):
        auto, model = MODELS[name][0], make(name)
        model.save_pretrained(tmp_path / name)
        folders[str(tmp_path / name)] = auto.__name__
        answer = [model(IDS, attention_mask=MASK).logits.flatten().tolist()]
        if auto is CAUSAL:
            answer.append(model.generate(IDS[:1], max_new_tokens=5, do_sample=False).tolist())
        expected[str(tmp_path / name)] = answer
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", ALONE, json.dumps(folders)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    for folder, (logits, module, *generated) in answers.items():
        assert module.startswith("transformers_modules.")
        assert logits == pytest.approx(expected[folder][0], abs=1e-6)
        assert generated == expected[folder][1:]
