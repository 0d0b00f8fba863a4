"""The behaviours of protected calls: what each is, the test that holds it, and a broken Genesis that this test must notice.

The numbers are those of the list that was made from the suites of resilience4j (R), Polly (P), pybreaker (B), failsafe-go (F),
interlock (I) and Finagle (N). Where Genesis does something else on purpose, `differs` says what and why. The table in
docs/proof.md is made from this one.
"""

from __future__ import annotations

from dataclasses import dataclass

FOLDER = "tests/unit/runtime/policy"
_CIRCUIT, _CALL, _RACE = "layers/mitigation/circuit.py", "runtime/call.py", "runtime/race.py"
_OPERATION, _PART, _PLANS = "runtime/operation.py", "runtime/part.py", "layers/mitigation/attempts.py"


@dataclass(frozen=True)
class Behaviour:
    """One behaviour. `file`, `old` and `new` are its mutant."""

    number: int
    what: str
    test: str
    file: str
    old: str
    new: str
    differs: str = ""

    @property
    def node(self) -> str:
        """The test, as pytest names it."""
        return f"{FOLDER}/{self.test}"


CLOSED, OPEN, HALF = "test_closed.py::test_b", "test_open.py::test_b", "test_half_open.py::test_b"
HAND, HEDGE = "test_by_hand.py::test_b", "test_hedging.py::test_b"
BEHAVIOURS = [
    Behaviour(
        1,
        "no rate below the minimum of calls",
        CLOSED + "1_there_is_no_rate_below_the_minimum_of_calls",
        "layers/mitigation/window.py",
        "if known < self._minimum:",
        "if known < 1:",
    ),
    Behaviour(
        3,
        "slow calls alone open it, good or not",
        CLOSED + "3_slow_calls_alone_open_it_whether_they_are_good_or_not",
        _CIRCUIT,
        "elif slow is not None and 0.0 < settings.slow_open_rate <= slow:",
        "elif slow is None and False:",
        "off by default (`slow_open_rate` 0): they make it RESILIENT, since opening would turn slow answers into none",
    ),
    Behaviour(
        5,
        "calls older than the window do not count",
        CLOSED + "5_calls_older_than_the_window_do_not_count",
        "layers/mitigation/window.py",
        "if began + self._window_s / PARTS > moment:",
        "if began <= moment + 1e9:",
    ),
    Behaviour(
        6,
        "ignored errors are neither successes nor failures",
        CLOSED + "6_an_ignored_error_is_neither_a_success_nor_a_failure",
        _OPERATION,
        "        if policy.ignored(error) or self._ignored(error):\n            return Outcome.IGNORED",
        "        if policy.ignored(error) or self._ignored(error):\n            return Outcome.FAILED",
    ),
    Behaviour(
        7,
        "what is ignored and a failure is ignored",
        CLOSED + "7_what_is_ignored_and_a_failure_is_ignored",
        _OPERATION,
        "if policy.ignored(error) or self._ignored(error):",
        "if policy.ignored(error) and not policy.failures(error):",
        "resilience4j records it by default; an exclusion is the more precise wish",
    ),
    Behaviour(
        8,
        "a bad value is a failure, others are successes",
        CLOSED + "8_a_bad_value_is_a_failure_and_others_are_good",
        _OPERATION,
        "return self._bad_result is not None and _says(self._bad_result, result, False)",
        "return False",
    ),
    Behaviour(
        9,
        "a success ends the row of failures",
        CLOSED + "9_a_success_ends_the_row_of_failures",
        _CIRCUIT,
        'or extremely slow."""\n        self.failure_count = 0.0\n',
        'or extremely slow."""\n',
    ),
    Behaviour(
        10,
        "errors by class, subclass and function, mixed",
        CLOSED + "10_errors_are_told_by_class_subclass_and_function_together",
        _OPERATION,
        "isinstance(error, self._types) or any(",
        "type(error) in self._types or any(",
    ),
    Behaviour(
        11,
        "an opening is told once",
        CLOSED + "11_an_opening_is_told_once",
        _CIRCUIT,
        "            self.changed(Transition(old, new, trigger, why, now))",
        "            self.changed(Transition(old, new, trigger, why, now))\n"
        "            self.changed(Transition(old, new, trigger, why, now))",
    ),
    Behaviour(
        12,
        "an error that is no failure is a success of the circuit, and reaches the caller",
        CLOSED + "12_an_error_that_is_no_failure_is_an_answer",
        _OPERATION,
        "return Outcome.UNHANDLED",
        "return Outcome.FAILED",
    ),
    Behaviour(
        13,
        "open: refuses without a call, and counts it",
        OPEN + "13_it_refuses_without_a_call_and_counts_it",
        _OPERATION,
        "self.policy.tell(self, Step.REJECTED, found.why)",
        "pass",
    ),
    Behaviour(
        14,
        "refused calls are in no rate",
        OPEN + "14_what_was_refused_is_in_no_rate",
        _CIRCUIT,
        "            return Refusal(self._open_until - now, _O, self.why)",
        "            self.window.failed(now)\n            return Refusal(self._open_until - now, _O, self.why)",
    ),
    Behaviour(
        15,
        "a refusal carries the time that is left and the error that opened it",
        OPEN + "15_a_refusal_says_when_to_come_back_and_what_opened_it",
        _OPERATION,
        "found.why) from part.cause",
        "found.why)",
    ),
    Behaviour(
        17,
        "a late success while open does nothing",
        OPEN + "17_a_late_success_does_nothing_while_it_is_open",
        _CIRCUIT,
        "return held and permit.generation == self.generation and",
        "return held and",
    ),
    Behaviour(
        19,
        "open for a given time",
        OPEN + "19_it_is_open_for_as_long_as_it_was_told",
        _CIRCUIT,
        "Mode.FORCED_OPEN, now + for_s",
        "Mode.FORCED_OPEN, now + 5.0",
    ),
    Behaviour(
        21,
        "the first error is kept with its traceback; an option raises it itself",
        OPEN + "21_the_first_error_is_kept_with_its_traceback_or_raised_itself",
        _CALL,
        "                raise told from error\n",
        "                raise told from None\n",
    ),
    Behaviour(
        22,
        "the time that is left reaches 0",
        OPEN + "22_the_time_that_is_left_is_told_and_reaches_nothing",
        _CIRCUIT,
        "return Refusal(self._open_until - now, _O, self.why)",
        "return Refusal(self._open_until - self._since, _O, self.why)",
    ),
    Behaviour(
        23,
        "the first call after the wait passes, and the figures begin anew",
        HALF + "23_the_first_call_after_the_wait_passes_and_the_figures_begin_anew",
        _CIRCUIT,
        "        self.window.clear()\n",
        "",
    ),
    Behaviour(
        24,
        "exactly N probes in each cycle",
        HALF + "24_exactly_so_many_probes_pass_in_each_cycle",
        _CIRCUIT,
        "if len(self._probes) >= min(",
        "if len(self._probes) > min(",
    ),
    Behaviour(
        25,
        "a permit given back admits one more",
        HALF + "25_a_permit_that_is_given_back_admits_one_more",
        _CIRCUIT,
        "self._probes.remove(permit)",
        "pass",
    ),
    Behaviour(
        26,
        "an ignored error frees its permit",
        HALF + "26_an_ignored_error_frees_its_permit",
        _CALL,
        "if outcome in (Outcome.IGNORED, Outcome.CANCELLED) or (",
        "if outcome is Outcome.CANCELLED or (",
    ),
    Behaviour(
        28,
        "a slow probe opens it again",
        HALF + "28_a_slow_probe_opens_it_again_when_slowness_opens",
        _CIRCUIT,
        "if self._settings.slow_open_rate and latency_s > self.slow_over_s:",
        "if False:",
    ),
    Behaviour(
        30,
        "a second caller during the probe is refused with a time",
        HALF + "30_a_second_caller_is_refused_with_a_time",
        _CIRCUIT,
        "wait_s = min(permit.expires_at for permit in self._probes) - now",
        "wait_s = 0.0",
    ),
    Behaviour(
        31,
        "a hung probe is replaced when its lease ends",
        HALF + "31_a_hung_probe_is_replaced_when_its_lease_ends",
        _CIRCUIT,
        "        self._probes = [permit for permit in self._probes if permit.expires_at > now]\n",
        "",
        "in Polly v8 it keeps the circuit half-open for ever",
    ),
    Behaviour(
        32,
        "k successes close it, one failure opens it and begins anew",
        HALF + "32_so_many_successes_close_it_and_a_failure_begins_anew",
        _CIRCUIT,
        "if self._proved >= self._settings.success_threshold:",
        "if self._proved:",
    ),
    Behaviour(
        33,
        "permits never exceed their number under threads",
        HALF + "33_no_more_than_the_permitted_probes_run_under_threads",
        _CIRCUIT,
        "if len(self._probes) >= min(",
        "if len(self._probes) >= 2 * min(",
    ),
    Behaviour(
        34,
        "a result of an earlier generation is dropped",
        HALF + "34_the_result_of_an_earlier_generation_is_dropped",
        _CIRCUIT,
        "permit.generation == self.generation",
        "permit.generation <= self.generation",
    ),
    Behaviour(
        35,
        "a cancelled probe returns its permit",
        HALF + "35_a_cancelled_probe_returns_its_permit",
        _PART,
        "self.circuit.released(permit)",
        "pass",
    ),
    Behaviour(
        37,
        "no way from CLOSED to HALF_OPEN",
        HALF + "37_there_is_no_way_from_closed_to_half_open",
        "layers/mitigation/states.py",
        "    (_C, Trigger.SLOW): _U,\n",
        "    (_C, Trigger.SLOW): _U,\n    (_C, Trigger.WAITED): _H,\n",
    ),
    Behaviour(
        38,
        "disabled: all pass, nothing is recorded or told",
        HAND + "38_disabled_all_calls_pass_and_nothing_is_recorded_or_told",
        _CIRCUIT,
        " and self.mode is not Mode.DISABLED\n",
        "\n",
    ),
    Behaviour(
        39,
        "open by hand ignores time",
        HAND + "39_open_by_hand_it_ignores_time",
        _CIRCUIT,
        "Mode.FORCED_OPEN, now + for_s",
        "Mode.FORCED_OPEN, now + min(for_s, 60.0)",
    ),
    Behaviour(
        40,
        "metrics only: tells each change once, refuses nothing",
        HAND + "40_only_measuring_it_tells_each_change_once_and_refuses_nothing",
        _CIRCUIT,
        "if isinstance(found, Refusal) and self.mode is Mode.METRICS_ONLY:",
        "if isinstance(found, Refusal) and False:",
    ),
    Behaviour(
        42,
        "a reset clears its figures and closes it",
        HAND + "42_a_reset_closes_it_and_clears_its_figures",
        _PART,
        "if change.trigger in (Trigger.PROVED, Trigger.RESET):",
        "if change.trigger is Trigger.PROVED:",
    ),
    Behaviour(
        43,
        "the first state can be chosen",
        HAND + "43_it_begins_in_the_state_that_is_asked_for",
        _CIRCUIT,
        "self.state, self.mode = initial, Mode.AUTOMATIC",
        "self.state, self.mode = _C, Mode.AUTOMATIC",
    ),
    Behaviour(
        44,
        "open by hand stays open on successes until it is closed by hand",
        HAND + "44_what_is_open_by_hand_stays_open_on_successes_until_it_is_closed_by_hand",
        _CIRCUIT,
        '        """The call was good. Returns whether that counts."""\n',
        '        """The call was good. Returns whether that counts."""\n'
        "        if self.state is _O:\n            self._go(Trigger.RESET, 'a success', now)\n",
    ),
    Behaviour(
        45,
        "making a second one of a name resets nothing of the first",
        HAND + "45_a_second_policy_of_a_name_does_not_touch_the_first",
        "runtime/policy.py",
        "        _policies.add(self)\n",
        "        [one._begin(one.rng) for one in policies() if one.name == self.name]\n        _policies.add(self)\n",
        "not yet: states are not shared between policies or processes, so there is no store to lose",
    ),
    Behaviour(
        46,
        "listeners hear success, failure and change (old and new), and nothing of the making",
        HAND + "46_listeners_hear_successes_failures_and_changes_and_nothing_of_the_making",
        "runtime/policy.py",
        "if isinstance(signal, kinds):",
        "if not isinstance(signal, kinds):",
        "no notice before a call: what is told has happened",
    ),
    Behaviour(
        48,
        "listeners run outside of the lock, one after the other, in order; their errors change nothing",
        HAND + "48_listeners_are_called_in_order_even_when_one_moves_the_circuit",
        _PART,
        "self._telling = True",
        "self._telling = False",
    ),
    Behaviour(
        49,
        "a generator is judged by its iteration; a block is as a call",
        HAND + "49_a_generator_is_judged_by_its_iteration",
        "runtime/block.py",
        "outcome, failure = Outcome.IGNORED if error is thrown else operation.judge(error), error",
        "outcome, failure = Outcome.GOOD, None",
    ),
    Behaviour(
        50,
        "a fast answer is not copied",
        HEDGE + "50_a_fast_answer_is_not_copied",
        _RACE,
        "(self._planned[0][0] <= now or",
        "(self._planned[0][0] or",
        "a fast *failure* starts the copy at once, as in gRPC A6, out of the same budget",
    ),
    Behaviour(
        51,
        "slow attempt, fast good copy: the copy's value",
        HEDGE + "51_of_a_slow_attempt_and_a_fast_good_copy_the_copy_wins",
        _RACE,
        '        self._let_out[self._start("copy", partial(call.once, let_out))] = let_out\n',
        "",
    ),
    Behaviour(
        52,
        "slow good attempt, fast bad copy: the attempt's value",
        HEDGE + "52_a_fast_bad_copy_does_not_beat_a_slow_good_attempt",
        _RACE,
        "        return False\n\n    def _refused",
        "        return True\n\n    def _refused",
        "in resilience4j whoever completes first wins, also with an error",
    ),
    Behaviour(
        54,
        "copies never start at once; without hedges nothing overlaps",
        HEDGE + "54_copies_never_start_at_once_and_without_hedges_nothing_overlaps",
        _PLANS,
        "copies.append(max(seconds, (copies[-1] if copies else 0.0) + GAP_S))",
        "copies.append(seconds)",
        "in Polly a delay of zero starts all at once: a second load. The literal rule stands as `as_written_plan`",
    ),
    Behaviour(
        55,
        "each copy has a delay of its own",
        HEDGE + "55_each_copy_has_a_delay_of_its_own",
        _PLANS,
        "(0.75, 0.9)[:most]",
        "(0.75, 0.75)[:most]",
        "it is a learned quantile and no function of the user's",
    ),
    Behaviour(
        56,
        "attempts beyond the most are never started",
        HEDGE + "56_attempts_beyond_the_most_are_never_started",
        _PLANS,
        "(0.95,)[:hedges]",
        "(0.95, 0.99)",
    ),
    Behaviour(
        58,
        "the winner cancels the others, the first included",
        HEDGE + "58_the_winner_cancels_the_others_the_first_included",
        _RACE,
        "        else:\n            task.cancel()",
        "        else:\n            pass",
    ),
    Behaviour(
        60,
        "each attempt has its own context; the caller sees the winner's changes only",
        HEDGE + "60_each_attempt_has_a_context_of_its_own_and_the_winners_is_kept",
        _RACE,
        "                variable.set(value)",
        "                pass",
    ),
    Behaviour(
        61,
        "a cancellation from outside cancels all attempts and is the caller's",
        HEDGE + "61_a_cancellation_from_outside_cancels_all_attempts_and_is_the_callers",
        _RACE,
        "                self._lose(task, kind)",
        "                pass",
    ),
    Behaviour(
        63,
        "what the winner began goes on",
        HEDGE + "63_what_the_winner_began_goes_on",
        _RACE,
        '        """Hand its context and its result to the caller."""\n',
        '        """Hand its context and its result to the caller."""\n'
        "        [one.cancel() for one in asyncio.all_tasks() - {asyncio.current_task()}]\n",
    ),
    Behaviour(
        65,
        "an error of a listener leaves no tasks",
        HEDGE + "65_an_error_of_a_listener_reaches_no_caller_and_leaves_no_tasks",
        "runtime/policy.py",
        "                except Exception:\n",
        "                except ZeroDivisionError:\n",
        "it is logged and does not reach the caller: who watches must not break what is watched",
    ),
    Behaviour(
        66,
        "each attempt is told: number, time, whether it is handled",
        HEDGE + "66_each_attempt_is_told_with_its_number_time_and_whether_it_is_handled",
        _CALL,
        "self.operation.name, number, took_s, outcome, hedge)",
        "self.operation.name, 1, took_s, outcome, hedge)",
    ),
    Behaviour(
        67,
        "no copies before there are samples, then at the quantile",
        HEDGE + "67_there_are_no_copies_before_there_are_samples_and_then_at_the_quantile",
        _RACE,
        '(began + after_s, "copy")',
        '(began + 2 * after_s, "copy")',
    ),
    Behaviour(
        69,
        "the floor of the budget grants the first few at low traffic",
        HEDGE + "69_the_first_few_are_granted_at_low_traffic",
        "layers/mitigation/budget.py",
        "settings.budget_share * calls + settings.budget_floor\n",
        "settings.budget_share * calls\n",
    ),
    Behaviour(
        70,
        "no copies at a quantile that is a bound or under 1 ms; losers are learned, fast failures are not",
        HEDGE + "70_nothing_is_copied_at_a_quantile_that_is_a_bound_or_under_a_millisecond",
        _PART,
        "or topped or",
        "or",
    ),
    Behaviour(
        71,
        "both budgets must grant a copy",
        HEDGE + "71_both_budgets_must_grant_a_copy",
        "layers/mitigation/budget.py",
        "granted = granted and share > 0",
        "granted = share > 0",
    ),
    Behaviour(
        72,
        "a cancellation in line or in a pause returns at once and leaks nothing",
        HEDGE + "72_a_cancellation_in_line_for_a_place_returns_at_once_and_leaks_nothing",
        "runtime/gate.py",
        "            self._wake(self._places.forget(turn))\n",
        "",
    ),
]


def table() -> str:
    """The table of docs/proof.md."""
    head = f"| | behaviour | test, in `{FOLDER}` | where Genesis differs, and why |"
    rows = [f"| {one.number} | {one.what} | `{one.test}` | {one.differs} |" for one in BEHAVIOURS]
    return "\n".join([head, "| --- | --- | --- | --- |", *rows])
