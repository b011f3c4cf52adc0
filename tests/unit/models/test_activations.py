import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.activations import ACT2FN

from seqgan_hf.generation.modes import evaluating
from seqgan_hf.generation.sampling import sample
from seqgan_hf.generation.vocabulary import start_prompt
from seqgan_hf.models.activations import fused_activations
from seqgan_hf.training import AdversarialTrainingArguments
from seqgan_hf.training.compiling import sharing


pytestmark = pytest.mark.skipif("config.getoption('--fast-paths') == 'off'", reason="there, nothing is fused")


def gpt2(**settings) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    sizes = {"vocab_size": 10, "n_positions": 8, "n_embd": 8, "n_layer": 2, "n_head": 2}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=None, **settings)).eval()


def operations(work) -> dict[str, int]:
    with profile(activities=[ProfilerActivity.CPU]) as found:
        work()
    return {event.key: event.count for event in found.key_averages()}


@pytest.mark.parametrize("name", ["gelu_new", "gelu_fast"])
def test_values_and_gradients_are_those_of_the_formula_written_out(name):
    activation, inputs = ACT2FN[name], torch.linspace(-6, 6, 201, dtype=torch.float64, requires_grad=True)
    written_out = activation(inputs)
    expected = torch.autograd.grad(written_out.sum(), inputs)[0]
    with fused_activations(activation):
        fused = activation(inputs)
    # gelu_fast has the constant sqrt(2 / pi) to ten digits
    torch.testing.assert_close(fused, written_out, rtol=0, atol=1e-9)
    torch.testing.assert_close(torch.autograd.grad(fused.sum(), inputs)[0], expected, rtol=0, atol=1e-9)


def test_a_model_computes_one_operation_in_place_of_eight_and_is_left_as_it_was():
    model, ids = gpt2(), torch.arange(8)[None]
    before = model(ids).logits
    assert operations(lambda: model(ids))["aten::pow"] == 2
    with fused_activations(model):
        assert operations(lambda: model(ids))["aten::gelu"] == 2
        torch.testing.assert_close(model(ids).logits, before)
        with fused_activations(model):
            pass
        assert operations(lambda: model(ids))["aten::gelu"] == 2  # not undone by what is inside
    assert "aten::gelu" not in operations(lambda: model(ids))
    assert torch.equal(model(ids).logits, before)


def test_samples_scores_and_training_steps_fuse_and_compiled_steps_do_not(tmp_path):
    model = gpt2()
    counted = operations(lambda: sample(model, start_prompt(model, 4), 8))
    assert counted["aten::gelu"] >= 16 and "aten::pow" not in counted
    args = AdversarialTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    ids = torch.arange(8)[None]
    with sharing(args, [model]):
        assert operations(lambda: model(ids))["aten::gelu"] == 2
    args.torch_compile = True
    with sharing(args, [model]):
        assert operations(lambda: model(ids))["aten::pow"] == 2
    with evaluating(model):  # with gradients: a checkpoint computed again later, elsewhere, would not be the same
        assert operations(lambda: model(ids))["aten::pow"] == 2


def test_what_something_else_has_replaced_stays():
    model, seen = gpt2(), []
    activation = model.transformer.h[0].mlp.act
    activation.forward = lambda inputs: seen.append(inputs) or inputs
    with fused_activations(model):
        model(torch.arange(8)[None])
    assert len(seen) == 1 and "forward" in vars(activation)
    assert "forward" not in vars(model.transformer.h[1].mlp.act)


def test_what_is_replaced_meanwhile_stays_too():
    model = gpt2()
    first, second = (block.mlp.act for block in model.transformer.h)
    with fused_activations(model):
        first.forward = hook = lambda inputs: inputs
        del second.forward  # as another thread might, that began before
    assert vars(first)["forward"] is hook and "forward" not in vars(second)


def test_an_error_leaves_the_model_as_it_was():
    model = gpt2()
    with pytest.raises(KeyError), fused_activations(model):
        raise KeyError
    assert "forward" not in vars(model.transformer.h[0].mlp.act)
