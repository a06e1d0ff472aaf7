"""Tests of the attention kernels' tiles: which are tried on a GPU, recorded, and then chosen by a launch."""

import json
from types import SimpleNamespace

import pytest
import torch

from trans4init.kernels.attention import configurations, tune
from trans4init.kernels.attention.configurations import PASSES, Case, Tile, candidates, choose


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """Fake a GPU by name and shared memory, with winners of another GPU recorded in a file of the test."""
    winners = tmp_path / "winners.json"
    winners.write_text('{"Another": {"forward D64 16-bit": [1, 2, 3, 4]}}')
    for module in (configurations, tune):
        monkeypatch.setattr(module, "WINNERS", winners)
    properties = SimpleNamespace(name="A GPU", shared_memory_per_block_optin=232_448)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    choose.cache_clear()
    yield SimpleNamespace(winners=winners, properties=properties, device=torch.device("cuda", 0))
    choose.cache_clear()


def test_without_a_record_the_first_candidate_is_taken(gpu):
    for which in PASSES:
        case = Case(which, 64, 2, True)
        assert choose(case, gpu.device) == candidates(case, "large")[0]


def test_a_gpu_of_less_shared_memory_gets_smaller_tiles(gpu):
    gpu.properties.shared_memory_per_block_optin = 101_376
    case = Case("forward", 64, 2, True)
    assert choose(case, gpu.device) == candidates(case, "small")[0] != candidates(case, "large")[0]


def test_the_fastest_candidate_is_recorded_for_this_gpu_and_taken_from_then_on(gpu, monkeypatch):
    def milliseconds(case, tile):
        return 1.0 / (1 + candidates(case, "large").index(tile))  # the last one is the fastest

    monkeypatch.setattr(tune, "milliseconds", milliseconds)
    tune.main()
    recorded = json.loads(gpu.winners.read_text())
    assert recorded["Another"] == {"forward D64 16-bit": [1, 2, 3, 4]}
    case = Case("query_gradient", 64, 2, True, True)
    last = candidates(case, "large")[-1]
    assert last != candidates(case, "large")[0]
    assert Tile(*recorded["A GPU"][str(case)]) == last == choose(case, gpu.device)


def test_tuning_without_a_gpu_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="this machine has none"):
        tune.main()
