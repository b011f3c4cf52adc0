"""Warnings of mode collapse and of players that no longer learn."""

from types import SimpleNamespace

import pytest

from seqgan_hf.training.callbacks.collapse import CollapseWarnings


def test_collapse_is_reported_once_and_again_after_recovery():
    monitor = CollapseWarnings()
    values = [0.8, 0.7, 0.3, 0.2, 0.6, 0.1]
    said = [monitor.update({"distinct_2": value}) for value in values]
    assert [len(warnings) for warnings in said] == [0, 0, 1, 0, 0, 1]
    assert "mode collapse" in said[2][0] and "Try" in said[2][0] and "0.300" in said[2][0]


@pytest.mark.parametrize(
    ("metrics", "rounds", "words"),
    [
        ({"self_bleu_3": 0.99}, 1, "mode collapse"),
        ({"distinct_2": 0.01}, 1, "mode collapse"),
        ({"reward_std": 0.001}, 5, "nearly the same reward"),
        ({"reward_std": 0.0}, 5, "nearly the same reward"),
        ({"discriminator_accuracy": 0.5}, 5, "guesses"),
        ({"discriminator_accuracy": 1.0}, 5, "always wins"),
        ({"discriminator_auc_test": 0.52}, 1, "cannot tell real text that it has not seen"),
        ({"discriminator_auc_test": 0.7, "discriminator_auc_train": 0.86}, 1, "by heart"),
    ],
)
def test_each_warning_waits_for_its_patience(metrics, rounds, words):
    monitor = CollapseWarnings(distinct_bound=0.1)
    said = [monitor.update(metrics) for _ in range(rounds + 3)]
    assert [bool(warnings) for warnings in said] == [False] * (rounds - 1) + [True] + [False] * 3
    assert words in said[rounds - 1][0] and "Try" in said[rounds - 1][0]


def test_healthy_rounds_give_no_warning():
    monitor = CollapseWarnings()
    healthy = {
        "distinct_2": 0.5,
        "self_bleu_3": 0.8,
        "reward_std": 0.1,
        "discriminator_accuracy": 0.7,
        "discriminator_auc_test": 0.7,
        "discriminator_auc_train": 0.8,
        "nll_test": 3.0,
    }
    assert all(monitor.update(healthy) == [] for _ in range(20))


def test_before_the_rounds_only_what_the_discriminator_knows_is_watched(caplog):
    """One pass in which it still guesses is no stuck game; what it knows in the end says what can be won."""
    monitor, state = CollapseWarnings(), SimpleNamespace(is_local_process_zero=True)
    for done in range(1, 8):
        monitor.on_log(None, state, None, {"pretrain_discriminator/step": done, "discriminator_accuracy": 0.5})
    assert not caplog.messages
    last = {"pretrain_discriminator/step": 8, "discriminator_auc_test": 0.51, "discriminator_auc_train": 0.9}
    monitor.on_log(None, state, None, last)
    assert ["cannot tell real text" in caplog.messages[0], "by heart" in caplog.messages[1]] == [True, True]
    monitor.on_log(None, state, None, {"adversarial/round": 1, **last})
    assert len(caplog.messages) == 2, "said once"


def test_monitor_goes_on_after_a_checkpoint():
    first, second = CollapseWarnings(), CollapseWarnings()
    for _ in range(4):
        first.update({"reward_std": 0.0, "distinct_2": 0.8})
    second.load_state_dict(first.state_dict())
    assert len(second.update({"reward_std": 0.0, "distinct_2": 0.3})) == 2
