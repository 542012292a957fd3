"""Turns: no upload is left to a run that has listed already, and runs of a batch do not work side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st
from orchard.landing_zone.batch_lock import BatchLock, RunName
from support.state_store import Memory


@dataclass
class Airflow:
    """Runs of one batch that take their steps in any order: wait_for_uploads, its end, the listing, the end of the run."""

    store: Memory = field(default_factory=Memory)
    bucket: int = 0
    states: dict[int, str] = field(default_factory=dict)
    seen: dict[int, int] = field(default_factory=dict)
    listed_at_once: int = 0

    def turns(self, number: int) -> BatchLock:
        def is_in(run: RunName, states: Sequence[str]) -> bool:
            state = self.states[int(run.run_id)]
            return (state if state in ("queued", "ended") else "running") in states

        return BatchLock("2026-01-05", RunName("on_arrival", str(number)), self.store, is_in)

    def upload(self) -> None:
        """An object lands, and its event starts a run."""
        self.bucket += 1
        self.states[len(self.states)] = "queued"

    def step(self, number: int) -> None:
        turns, state = self.turns(number), self.states[number]
        if state == "queued":
            if turns.run_that_will_list() is not None:
                self.states[number] = "ended"
                return
            turns.promise_listing()
            self.states[number] = "waiting"
        elif state == "waiting":
            if turns.run_at_work() is None:
                turns.acquire()
                self.states[number] = "planning"
        elif state == "planning":
            turns.withdraw_promise()
            self.states[number] = "listing"
        elif state == "listing":
            self.seen[number] = self.bucket
            self.states[number] = "working"
            self.listed_at_once = max(self.listed_at_once, sum(state == "working" for state in self.states.values()))
        else:
            self.states[number] = "ended"

    def finish(self) -> None:
        while set(self.states.values()) - {"ended"}:
            for number in self.states:
                self.step(number)


@given(st.lists(st.integers(-3, 8), max_size=60))
def test_the_last_upload_is_always_listed_and_one_run_works_at_a_time(moves: list[int]) -> None:
    airflow = Airflow()
    airflow.upload()
    for move in moves:
        if move < 0:
            airflow.upload()
        elif move < len(airflow.states):
            airflow.step(move)
    airflow.finish()
    assert max(airflow.seen.values()) == airflow.bucket
    assert airflow.listed_at_once == 1


def test_an_upload_after_a_runs_listing_leads_to_a_run_that_sees_it() -> None:
    airflow = Airflow()
    airflow.upload()
    while airflow.states[0] != "working":
        airflow.step(0)
    airflow.upload()
    airflow.step(1)
    airflow.step(1)
    assert airflow.states[1] == "waiting"  # for its turn
    airflow.step(0)
    airflow.finish()
    assert airflow.seen == {0: 1, 1: 2}


def test_many_events_while_a_run_waits_are_skipped_at_once() -> None:
    airflow = Airflow()
    airflow.upload()
    airflow.step(0)
    for number in range(1, 50):
        airflow.upload()
        airflow.step(number)
        assert airflow.states[number] == "ended"
    airflow.finish()
    assert airflow.seen == {0: 50}


def test_a_run_that_failed_or_was_deleted_holds_up_nobody() -> None:
    airflow = Airflow()
    airflow.upload()
    airflow.step(0)
    airflow.step(0)
    airflow.states[0] = "ended"  # before it listed
    airflow.upload()
    airflow.finish()
    assert airflow.seen == {1: 2}


def test_a_run_does_not_give_way_to_itself_or_wait_for_itself() -> None:
    airflow = Airflow(states={0: "waiting"})
    turns = airflow.turns(0)
    turns.promise_listing()
    turns.acquire()
    assert (turns.run_that_will_list(), turns.run_at_work()) == (None, None)


def test_nobody_waits_for_a_cleared_run_that_cannot_start_yet() -> None:
    airflow = Airflow()
    airflow.upload()
    while airflow.states[0] != "ended":
        airflow.step(0)
    airflow.states[0] = "queued"  # cleared; ORCHARD_MAX_ACTIVE_RUNS others hold the places
    airflow.upload()
    airflow.states[1] = "waiting"
    airflow.step(1)
    assert airflow.states[1] == "planning"
    airflow.finish()
    assert max(airflow.seen.values()) == 2


def test_a_run_takes_back_no_promise_but_its_own() -> None:
    airflow = Airflow(states={0: "waiting", 1: "waiting", 2: "queued"})
    airflow.turns(0).promise_listing()
    airflow.turns(1).promise_listing()
    airflow.turns(0).withdraw_promise()
    assert airflow.turns(2).run_that_will_list() == RunName("on_arrival", "1")
    airflow.turns(1).withdraw_promise()
    assert airflow.turns(2).run_that_will_list() is None
