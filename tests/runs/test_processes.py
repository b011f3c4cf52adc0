"""Several processes: what two give is what one gives, and nobody waits for a process that is gone."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from seqgan_hf.objectives import MLE, Loss, Reinforce
from seqgan_hf.runs.folder import RunFolderError
from seqgan_hf.samples import Samples
from seqgan_hf.training import Interrupted
from seqgan_hf.training.player import Player
from seqgan_hf.training.processes import TrainingError, alone_by_mistake, check_same_weights, fingerprint
from tests.tools.small_runs import StopAfter, TwoCopies, build_on_two, kept_twice, metrics, same, text, weights
from tests.tools.two_processes import on_two


ROOT = Path(__file__).parents[2]


# --- The same gradients ----------------------------------------------------------------------------------------------


class Recorder:
    """An optimizer that keeps the gradient and leaves the weights."""

    def __init__(self, model):
        self.model, self.gradients = model, None

    def step(self):
        self.gradients = [None if p.grad is None else p.grad.clone() for p in self.model.parameters()]

    def zero_grad(self):
        self.model.zero_grad()


def recorded(player: Player) -> Player:
    """The player with a recorder in place of its optimizer, and without clipping."""
    player.optimizer, player.max_norm = Recorder(player.model), 0.0
    return player


class Given(Reinforce):
    """Learns from the sequences that it is given."""

    given: list[Samples]

    def sample(self, models, real, max_new_tokens):
        return self.given.pop(0)


CASES = {
    "likelihood": (MLE, {}, "cnn"),
    "policy gradient": (Given, {}, "cnn"),
    "leave one out": (Given, {"baseline": "leave_one_out"}, "cnn"),
    "batch mean": (Given, {"baseline": "batch"}, "cnn"),
    "moving average": (Given, {"baseline": "moving_average"}, "cnn"),
    "verdict per token": (Given, {}, "per_token"),
}


def gradients(folder, share: slice, parts: int = 1, cases=tuple(CASES)) -> dict[str, list[torch.Tensor]]:
    """What one step of each kind follows, on a share of 16 real and 16 generated sequences cut into `parts`."""
    found = {}
    for name in cases:
        kind, settings, judge = CASES[name]
        objective = kind(**settings)
        trainer = build_on_two(folder, objective if kind is Given else Reinforce(), text(16), models=("lstm", judge))
        trainer.models.generator.eval(), trainer.models.discriminator.eval()
        real, fake = text(16, 1).select(share), text(16, 2).select(share)
        size = real.batch_size // parts
        objective.given = fake.split(size)
        player = recorded(trainer.parts.players["generator"])
        trainer.generator_step(objective, real.split(size), player)
        found[name] = player.optimizer.gradients
        if kind is Given:
            player = recorded(trainer.parts.players["discriminator"])
            for one, other in zip(real.split(size), fake.split(size), strict=True):
                player.backward(trainer.objective.discriminator_loss(trainer.models, one, other))
            player.step()
            found[f"{name}, D"] = player.optimizer.gradients
    return found


def near(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    scale = max(float(gradient.abs().max()) for gradient in one)
    assert scale > 1e-3, "nothing to compare"
    return all(torch.allclose(a, b, rtol=0, atol=1e-5 * max(1.0, scale)) for a, b in zip(one, other, strict=True))


def _gradients_of_half(rank, folder):
    return gradients(folder, slice(8 * rank, 8 * rank + 8))


def test_two_processes_follow_the_gradient_of_one(tmp_path):
    """Sequences of unequal length, so that a mean of means is not the mean."""
    both = on_two(_gradients_of_half, tmp_path / "run")
    whole = gradients(tmp_path / "run", slice(0, 16))
    assert len(whole) == 11
    for name in whole:
        assert same(both[0][name], both[1][name]), f"{name}: not the same on both processes"
        assert near(whole[name], both[0][name]), f"{name}: not the gradient of the whole batch"


def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path):
    """What is a mean over tokens or over sequences does not depend on the cut; D counts equally many of each kind."""
    whole = gradients(tmp_path / "run", slice(0, 16), cases=("likelihood", "policy gradient"))
    parts = gradients(tmp_path / "run", slice(0, 16), parts=2, cases=("likelihood",))
    assert near(whole["likelihood"], parts["likelihood"])
    trainer = build_on_two(tmp_path / "run", Reinforce(), text(16))
    trainer.models.discriminator.eval()
    player = recorded(trainer.parts.players["discriminator"])
    for part in (slice(0, 4), slice(4, 8), slice(8, 16)):
        real, fake = text(16, 1).select(part), text(16, 2).select(part)
        loss = trainer.objective.discriminator_loss(trainer.models, real, fake)
        player.backward(Loss(loss.value, loss.metrics, weight=float(real.batch_size)))
    player.step()
    assert near(whole["policy gradient, D"], player.optimizer.gradients)


# --- A whole run -----------------------------------------------------------------------------------------------------


def _record_writes(folder: Path) -> list[str]:
    written = []

    def hook(event, arguments):
        if event == "open" and isinstance(arguments[0], str) and str(folder) in arguments[0]:
            if isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
                written.append(arguments[0])

    sys.addaudithook(hook)
    return written


def _whole_and_cut(rank, folder):
    """One run to the end; then runs that are interrupted in every phase on one process, and resumed."""
    written = _record_writes(folder)
    whole = build_on_two(folder / "whole", seed=rank)  # the trainer shares the main process's weights
    start = weights(whole)
    drawn = torch.rand(3)
    fakes = whole.draw_fakes(0)[1].samples.ids
    whole = build_on_two(folder / "whole", TwoCopies())
    whole.train()
    ends = {}
    for step in (2, 8, 15, 19, 25):
        stop = StopAfter(step, signal.SIGTERM)
        stop.trainer = build_on_two(folder / f"cut-{step}", TwoCopies(), callbacks=[stop] if rank else [])
        with pytest.raises(Interrupted):
            stop.trainer.train()
        where = dict(stop.trainer.parts.units.done)
        torch.manual_seed(123)
        resumed = build_on_two(folder / f"cut-{step}", TwoCopies(), resume_from_checkpoint=True)
        resumed.train()
        ends[step] = weights(resumed), where
    return {"start": start, "drawn": drawn, "fakes": fakes, "end": weights(whole), "cut": ends, "written": written}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    return folder, on_two(_whole_and_cut, folder)


def test_both_processes_begin_and_end_with_the_same_weights_and_draw_different_samples(runs):
    _, (one, other) = runs
    assert same(one["start"], other["start"]) and same(one["end"], other["end"])
    assert not same(one["start"], one["end"])
    assert not torch.equal(one["drawn"], other["drawn"]) and not torch.equal(one["fakes"], other["fakes"])
    assert one["fakes"].shape == (24, 5), "48 fakes are shared out"


def test_a_run_on_two_processes_that_is_interrupted_ends_as_if_it_had_not_been(runs):
    folder, results = runs
    places = [tuple(where.values()) for _, where in results[0]["cut"].values()]
    assert len(set(places)) == 5, "every cut in a unit of its own"
    for step in results[0]["cut"]:
        for result in results:
            assert same(result["cut"][step][0], result["end"]), f"interrupted at step {step}"
        assert metrics(folder / f"cut-{step}") == metrics(folder / "whole")


def test_only_the_main_process_writes(runs):
    folder, (main, other) = runs
    assert {Path(path).name for path in other["written"]} <= {"process-1.pt"}
    assert any(path.endswith("metrics.jsonl") for path in main["written"])
    record = metrics(folder / "whole")
    # 48 sequences in batches of 2 x 8; d-steps of 48 fakes in batches of 2 x 4
    assert [line["global_step"] for line in record] == [3, 6, 12, 18, 31, 44]
    assert len((folder / "whole" / "samples" / "adversarial-2.txt").read_text().splitlines()) == 21
    (last, _) = sorted((folder / "whole" / "checkpoints").glob("checkpoint-*"), reverse=True)
    assert {path.name for path in last.glob("process-*")} == {"process-0.pt", "process-1.pt"}
    assert not kept_twice(last, "rollout_policy", "snapshot")


def test_pretraining_on_two_processes_is_that_on_one(tmp_path):
    """The same batches, half of each on each process: the same weights but for rounding."""

    def pretrain(rank, folder, batch):
        trainer = build_on_two(
            folder, pretrain_epochs=3, discriminator_pretrain_steps=0, rounds=0, per_device_train_batch_size=batch
        )
        trainer.train()
        return weights(trainer), metrics(folder)

    two = on_two(pretrain, tmp_path / "two", 8)[0]
    one = pretrain(0, tmp_path / "one", 16)
    for left, right in zip(one[0], two[0], strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)
    for left, right in zip(one[1], two[1], strict=True):
        assert left["nll_train"] == pytest.approx(right["nll_train"], rel=1e-4)
        assert left["nll_test"] == pytest.approx(right["nll_test"], rel=1e-4)


# --- What goes wrong -------------------------------------------------------------------------------------------------


def _faults(rank, folder):
    found = {}

    class Meddle(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            if rank and state.global_step == 2:
                with torch.no_grad():
                    next(model.parameters())[0, 0] += 1e-7

    with pytest.raises(TrainingError) as error:
        build_on_two(folder / "meddle", callbacks=[Meddle()]).train()
    found["meddle"] = str(error.value)
    trainer = build_on_two(
        folder / "nan", objective=NaN() if rank else Reinforce(), pretrain_epochs=0, eval_rounds=0, generator_steps=9
    )
    with pytest.raises(TrainingError) as error:
        trainer.train()
    found["nan"] = str(error.value)
    found["finite"] = all(bool(p.isfinite().all()) for p in trainer.models.generator.parameters())

    save = torch.save
    torch.save = _full_disk
    with pytest.raises((RunFolderError, TrainingError)) as error:
        build_on_two(folder / "full").train()
    torch.save = save
    found["full"] = str(error.value)

    class Leave(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = rank == 1 and state.global_step == 4
            return control

    left = build_on_two(folder / "left", callbacks=[Leave()])
    left.train()
    found["left"] = left.session.state.global_step
    found["alone"] = alone_by_mistake(left.session.accelerator)
    dead = build_on_two(folder / "dead")
    if rank:
        (folder.parent / "found-1.json").write_text(json.dumps(found))
        os._exit(0)  # dies without a word
    with pytest.raises(TrainingError) as error:
        dead.train()
    found["dead"] = str(error.value)
    (folder.parent / "found-0.json").write_text(json.dumps(found))


def _full_disk(state, path):
    """No room on the second process's disk."""
    if Path(path).name == "process-1.pt":
        raise OSError(errno.ENOSPC, "No space left on device")


class NaN(Reinforce):
    def generator_loss(self, models, real, fake):
        loss = super().generator_loss(models, real, fake)
        return Loss(loss.value * float("nan"))


def test_faults_of_one_process_end_all_of_them_in_a_clear_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="result-1"):  # process 1 has left
        on_two(_faults, tmp_path / "run")
    found, other = (json.loads((tmp_path / f"found-{rank}.json").read_text()) for rank in range(2))
    assert "Model weights differ between processes (generator." in found["meddle"]
    assert not (tmp_path / "run" / "meddle" / "checkpoints" / "checkpoint-3").exists()
    assert "times in a row. Lower the learning rate" in found["nan"] and found["finite"]
    assert "Another process failed. Read its messages above." in found["full"]
    assert "([Errno 28] No space left on device). Make room" in other["full"]
    assert other["meddle"] == found["meddle"] and other["nan"] == found["nan"]
    assert found["left"] == 4, "a callback on one process ends all of them at the same step"
    assert found["alone"] is None
    assert "nother of the 2 processes does not answer" in found["dead"]


def test_fingerprints_tell_tensors_apart():
    values = torch.randn(3, 5)
    other = values.clone()
    other[1, 1] = torch.nextafter(other[1, 1], torch.tensor(9.0))
    swapped = values.flip(0)
    for kind in (torch.float32, torch.bfloat16, torch.float64):
        assert fingerprint(values.to(kind)) == fingerprint(values.clone().to(kind))
        assert fingerprint(values.to(kind)) != fingerprint(swapped.to(kind))
    assert fingerprint(values) != fingerprint(other)
    assert fingerprint(torch.tensor([True, False])) != fingerprint(torch.tensor([False, True]))
    assert fingerprint(torch.zeros(2)) != fingerprint(torch.zeros(3))


@pytest.mark.parametrize(
    ("environment", "warned"),
    [
        ({}, False),
        ({"WORLD_SIZE": "1"}, False),
        ({"WORLD_SIZE": "2"}, True),
        ({"ACCELERATE_MIXED_PRECISION": "no"}, False),
        ({"MASTER_PORT": "29500"}, False),
        ({"ACCELERATE_MIXED_PRECISION": "no", "MASTER_PORT": "29500"}, True),  # accelerate launch --cpu
        ({"ACCELERATE_MIXED_PRECISION": "no", "MASTER_PORT": "29500", "WORLD_SIZE": "1"}, False),
    ],
)
def test_a_run_that_was_to_have_company_says_that_it_is_alone(environment, warned, tmp_path, monkeypatch, caplog):
    trainer = build_on_two(tmp_path / "run", pretrain_epochs=0, discriminator_pretrain_steps=0, rounds=0)
    for name in ("WORLD_SIZE", "ACCELERATE_MIXED_PRECISION", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    trainer.train()
    assert ("Running as 1 process" in caplog.text) == warned


DYING = '''
import os, signal, time
from pathlib import Path
from seqgan_hf import Reinforce


class Dying(Reinforce):
    """Its second process is killed in the third g-step."""

    calls = 0

    def generator_loss(self, *batch):
        self.calls += 1
        (Path(__file__).parent / f"pid-{os.environ['RANK']}").write_text(str(os.getpid()))
        if self.calls == 3 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().generator_loss(*batch)
'''


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except (OSError, IndexError):
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
def test_a_launched_process_that_dies_takes_the_others_with_it(tmp_path):
    """The command of the documents, with `torchrun`."""
    (tmp_path / "dying.py").write_text(DYING)
    sizes = {"data.num_train": 64, "data.num_eval": 8, "data.vocab_size": 20, "data.length": 6}
    sizes |= {"training.pretrain_epochs": 1, "training.discriminator_pretrain_steps": 0, "training.save_every": 1}
    sizes |= {"training.per_device_train_batch_size": 16, "training.use_cpu": "true", "training.eval_samples": 8}
    sizes |= {"training.generator_steps": 2, "training.num_fakes": 64, "training.output_dir": tmp_path / "run"}
    call = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "seqgan_hf"]
    call += ["train", str(ROOT / "recipes/oracle/quickstart.yaml"), "--objective", "dying.Dying"]
    call += itertools.chain.from_iterable((f"--{name}", str(value)) for name, value in sizes.items())
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    start = time.monotonic()
    done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "seqgan-hf (process 0): Another of the 2 processes does not answer" in done.stderr
    assert "SIGKILL" in done.stderr
    pids = [int((tmp_path / f"pid-{rank}").read_text()) for rank in range(2)]
    assert not any(alive(pid) for pid in pids), "an orphan was left behind"
    assert (tmp_path / "run" / "checkpoints").is_dir() and time.monotonic() - start < 100
    rounds = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in rounds] == ["pretrain_generator", "adversarial"]


def test_one_process_has_nothing_to_compare(tmp_path):
    trainer = build_on_two(tmp_path / "run")
    check_same_weights(trainer.session.accelerator, trainer.models.named())


# --- Launch configurations -------------------------------------------------------------------------------------------

LAUNCHED = {
    "one_gpu": {"distributed_type": "NO", "num_processes": 1, "mixed_precision": "no", "use_cpu": False},
    "multi_gpu": {"distributed_type": "MULTI_GPU", "num_processes": 4, "num_machines": 1},
    "multi_node": {"distributed_type": "MULTI_GPU", "num_processes": 16, "num_machines": 2},
    "cpu": {"distributed_type": "NO", "num_processes": 1, "use_cpu": True},
    "mixed_precision": {"mixed_precision": "bf16", "num_processes": 1},
}


def test_no_launch_configuration_is_forgotten():
    assert {path.stem for path in (ROOT / "recipes" / "accelerate").glob("*.yaml")} == set(LAUNCHED)


@pytest.mark.parametrize("name", LAUNCHED)
def test_launch_configurations_are_valid_for_accelerate(name):
    """Read as `accelerate launch --config_file` reads them, which refuses unknown keys."""
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    path = ROOT / "recipes" / "accelerate" / f"{name}.yaml"
    config = load_config_from_file(str(path))
    for key, value in LAUNCHED[name].items():
        assert getattr(config, key) == value, key
    call = ["--config_file", str(path), "-m", "seqgan_hf", "train"]
    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(call))
    assert (arguments.num_processes, arguments.mixed_precision) == (config.num_processes, config.mixed_precision)
    assert arguments.multi_gpu == (config.distributed_type == "MULTI_GPU") and arguments.use_cpu == config.use_cpu
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(f"accelerate launch --config_file {name}.yaml" in line for line in header)


def test_precision_is_the_launchers_where_the_recipe_is_silent(tmp_path, monkeypatch):
    nothing = {"pretrain_epochs": 0, "discriminator_pretrain_steps": 0, "rounds": 0}
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert build_on_two(tmp_path / "run", **nothing).session.accelerator.mixed_precision == "bf16"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert build_on_two(tmp_path / "run", **nothing).session.accelerator.mixed_precision == "no"
    assert build_on_two(tmp_path / "run", bf16=True, **nothing).session.accelerator.mixed_precision == "bf16"
