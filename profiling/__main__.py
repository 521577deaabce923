"""The command line of profiling: `python -m profiling bench md-step --rival lammps`."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import sys
import time

import torch

from . import harness, machine, roofline
from .cases import CASES


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and do what it asks; return the exit status."""
    options = _parser().parse_args(arguments)
    if getattr(options, "device", "cpu") != "cpu" and not torch.cuda.is_available():
        print("error: there is no GPU here; leave out --device", file=sys.stderr)
        return 1
    torch.set_num_threads(options.threads or torch.get_num_threads())
    try:
        return options.do(options)
    except (ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def bench(options) -> int:
    """Run a case's tests, then the case beside its rivals; print and keep the figures."""
    case = _case(options.case)
    rivals = _rivals(case, options.rival)
    print(f"{case.name}: {case.what}\nrunning its tests first: {' '.join(case.tests)}", flush=True)
    if not harness.tests_pass(case.tests):
        print(f"error: the tests of {case.name} are red, no figures; mend them first", file=sys.stderr)
        return 1
    for size in options.size or case.sizes:
        for workload in case.prepare(size, rivals, options.device, options.start):
            rows = harness.measure(case.name, workload, options.repeats, options.alone)
            print(harness.show(rows), flush=True)
            path = harness.save(rows)
    print(f"kept in {path.relative_to(harness.ROOT)}")
    return 0


def replay(options) -> int:
    """Repeat our implementation of a case and nothing else, for a profiler to look at."""
    case = _case(options.case)
    for workload in case.prepare((options.size or case.sizes)[0], (), options.device, options.start):
        name, run = next(iter(workload.implementations.items()))
        with torch.profiler.profile() if options.trace else contextlib.nullcontext() as profile:
            rounds, begin = 0, time.perf_counter()
            while time.perf_counter() - begin < options.seconds:
                run()
                rounds += 1
        if options.trace:
            profile.export_chrome_trace(options.trace)
        print(f"{case.name} {workload.variant}: {name} ran {rounds} times on {workload.size} atoms")
    return 0


def _roofline(options) -> int:
    with machine.alone(options.alone):
        machine.limits(torch.get_num_threads())  # measured once, kept for the report
    print(roofline.report(machine.name(), torch.get_num_threads()))
    return 0


def _rivals(case: harness.Case, asked: list[str] | None) -> tuple[str, ...]:
    for name in asked or ():
        if name not in case.rivals:
            raise ValueError(f"case '{case.name}' has no rival '{name}', it has {', '.join(case.rivals)}")
    rivals = []
    for name in asked if asked is not None else case.rivals:
        reason = case.unavailable.get(name, lambda: None)()
        if reason is None:
            rivals.append(name)
        elif asked is not None:
            raise ValueError(f"rival '{name}' cannot run: {reason}")
        else:
            print(f"without {name}: {reason}")
    return tuple(rivals)


def _case(name: str) -> harness.Case:
    if name in CASES:
        return CASES[name]
    near = difflib.get_close_matches(name, CASES, n=1, cutoff=0.4)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise ValueError(f"unknown case '{name}', known are {', '.join(CASES)}{hint}")


def _list(options) -> int:
    for case in CASES.values():
        print(f"{case.name:<16} {case.what}; rivals: {', '.join(case.rivals)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m profiling", description=__doc__)
    parser.add_argument("--threads", type=int, help="threads of ours and ranks of LAMMPS (default: all cores)")
    commands = parser.add_subparsers(required=True)
    for command, do in (("bench", bench), ("replay", replay)):
        sub = commands.add_parser(command, help=do.__doc__, description=do.__doc__)
        sub.add_argument("case", help=f"one of {', '.join(CASES)}")
        sub.add_argument("--size", type=int, action="append", help="atoms; may be given several times")
        sub.add_argument("--start", help="a structure of 3,000 silica atoms to start from instead of our own")
        sub.add_argument("--device", default="cpu", help="cpu or cuda (not yet run on a GPU)")
        sub.set_defaults(do=do)
        if do is bench:
            sub.add_argument("--rival", action="append", help="only this one (may be repeated); default: all")
            sub.add_argument("--repeats", type=int, default=5)
        else:
            sub.add_argument("--seconds", type=float, default=5.0)
            sub.add_argument("--trace", help="write a trace of torch's profiler to this JSON file")
    roof = commands.add_parser("roofline", help=roofline.report.__doc__)
    roof.set_defaults(do=_roofline)
    for sub in (commands.choices["bench"], roof):
        sub.add_argument("--alone", action="store_true", help="keep other processes out (needs root)")
    commands.add_parser("list", help="show the cases").set_defaults(do=_list)
    return parser


if __name__ == "__main__":
    sys.exit(main())
