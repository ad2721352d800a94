"""Runs the patches of scripts/mutants, each against the tests that can catch it.

usage: python3 scripts/mutants.py PATCHES [WORD...]

PATCHES holds name, file, old and new text of each, ended by NUL. A build for each patch would take hours,
so each crate is copied and built once with all of them: a function with patches gets one arm of a `match`
for each, which holds its body with that patch, and LOCKGATE_MUTANT says at run time which one counts. What
does not lie inside one function is built by itself.
"""

import collections
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys

Patch = collections.namedtuple("Patch", "number name file old new")

COPIES = pathlib.Path("target/mutants")
TABLE = COPIES / "table.md"
TARGET = COPIES / "target"
TUF = "agent/src/core/tuf/"
# A loop without end is red too: tests that take so many times as long as without the patch, and so many
# seconds more. By the processor's time, because the machine may be busy.
TIMES, SECONDS = 3, 10
# Before it is known how long they take.
UNKNOWN_S = 600
SWITCH = """
/// Which patch counts.
pub(crate) fn lockgate_mutant() -> u32 {
    static NUMBER: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *NUMBER.get_or_init(|| {
        std::env::var("LOCKGATE_MUTANT").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    })
}
"""


def crate_of(file):
    """The crate that a file is built in: the TUF client is one of its own, so that its build is short."""
    return "tuf" if file.startswith(TUF) else file.split("/")[0]


def copy_of(file):
    if file.startswith(TUF):
        return COPIES / "tuf/src/tuf" / file.removeprefix(TUF)
    return COPIES / "others" / file


def tests_of(file):
    """Which tests can catch a change of a file: the quick ones, then those that take long and are only
    run where the others noticed nothing. An empty text is all."""
    for start, filters in [
        (TUF, [""]),
        ("shared/", [""]),
        ("agent/src/transport/", ["transport::"]),
        ("agent/src/core/", ["core::", "run::"]),
        ("agent/src/run/", ["run::"]),
        ("server/src/engine/", ["engine:: --skip trial_stories", "engine::trial_stories"]),
        ("server/src/rollout/", ["rollout::", "engine::"]),
    ]:
        if file.startswith(start):
            return filters
    raise SystemExit(f"{file}: nobody knows which tests can catch a change of it")


def copy_sources():
    shutil.rmtree(COPIES / "others", ignore_errors=True)
    shutil.rmtree(COPIES / "tuf", ignore_errors=True)
    # The crates as they are, in a workspace without the one that nothing depends on.
    for name in ["agent", "server", "shared"]:
        shutil.copytree(name, COPIES / "others" / name, ignore=shutil.ignore_patterns("target"))
    workspace = pathlib.Path("Cargo.toml").read_text()
    workspace = workspace.replace(', "test-fleet"]', "]").replace('"line-tables-only"', "false")
    kept = [line for line in workspace.splitlines() if not line.startswith("exclude")]
    (COPIES / "others/Cargo.toml").write_text("\n".join(kept) + "\n")
    shutil.copy("Cargo.lock", COPIES / "others/Cargo.lock")
    # The TUF client alone, with the workspace's dependencies.
    shutil.copytree(TUF, COPIES / "tuf/src/tuf")
    names = "ed25519-dalek|hex|proptest|serde|serde_json|sha2|thiserror"
    needs = re.findall(f"^(?:{names}) = .*$", workspace, re.MULTILINE)
    (COPIES / "tuf/Cargo.toml").write_text(
        '[package]\nname = "mutants"\nedition = "2024"\n[workspace]\n[lints.rust]\nwarnings = "allow"\n'
        '[dependencies]\nlockgate-shared = { path = "../others/shared" }\n'
        + "\n".join(needs)
        + '\n[profile.dev]\ndebug = false\n[profile.dev.package."*"]\nopt-level = 1\n'
    )
    (COPIES / "tuf/src/lib.rs").write_text("#![allow(missing_docs)]\npub mod tuf;\n")
    shutil.copy("Cargo.lock", COPIES / "tuf/Cargo.lock")
    for library in ["tuf/src", "others/agent/src", "others/server/src", "others/shared/src"]:
        with (COPIES / library / "lib.rs").open("a") as file:
            file.write(SWITCH)


def borrow_dependencies():
    """Third-party crates as they are built already: only ours are built here."""
    built, ours = pathlib.Path("target/debug"), TARGET / "debug"
    if (ours / "build").exists() or not (built / "deps").exists():
        return
    (ours / "deps").mkdir(parents=True)
    for name in ["build", ".fingerprint"]:
        subprocess.run(["cp", "-a", built / name, ours], check=True)
    kinds = {".rlib", ".rmeta", ".so", ".d"}
    files = [f for f in (built / "deps").iterdir() if f.suffix in kinds and "lockgate" not in f.name]
    for start in range(0, len(files), 500):
        subprocess.run(["cp", "-a", "-t", ours / "deps", *files[start : start + 500]], check=True)


def body_around(text, old):
    """Where the body of the function stands that `old` lies in: from after its brace to before the other."""
    begin = text.index(old)
    end = begin + len(old)
    heads = r"^( *)(?:pub(?:\([a-z]+\))? )?(?:const )?fn [^\n]*?(?:\{|\([^{;]*?^\1\)[^\n]*\{)\n"
    found = None
    for head in re.finditer(heads, text, re.MULTILINE):
        close = text.find(f"\n{head[1]}}}\n", head.end() - 1)
        if head.end() <= begin and end <= close + 1:
            found = (head.start(), head.end(), close + 1)
    return found


def weave(file, patches):
    """Writes all patches of a file into its copy. Gives those that have to be built by themselves."""
    text = pathlib.Path(file).read_text()
    bodies, alone = collections.defaultdict(list), []
    for patch in patches:
        place = body_around(text, patch.old)
        (bodies[place] if place else alone).append(patch)
    woven = text
    for (head, begin, end), of_it in sorted(bodies.items(), reverse=True):
        # No `const`: what is read at run time is none.
        signature = re.sub(r"\bconst fn ", "fn ", text[head:begin], count=1)
        body = text[begin:end]
        arms = []
        for patch in of_it:
            # A patch may reach up to the line's beginning.
            arms.append(f"{patch.number} => {{\n{body.replace(patch.old, patch.new)}}}\n")
        inner = "match crate::lockgate_mutant() {\n" + "".join(arms) + f"_ => {{\n{body}}}\n}}\n"
        woven = woven[:head] + signature + inner + woven[end:]
    copy_of(file).write_text(woven)
    return alone


def build(crate):
    """Builds a crate's tests; gives the program, or what the compiler said."""
    where = COPIES / ("tuf" if crate == "tuf" else "others")
    package = [] if crate == "tuf" else ["-p", f"lockgate-{crate}"]
    command = ["cargo", "test", "--no-run", "--lib", "--offline", "--message-format=json", *package]
    environment = {**os.environ, "CARGO_TARGET_DIR": str(TARGET.resolve())}
    made = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True)
    messages = [json.loads(line) for line in made.stdout.splitlines() if line.startswith("{")]
    if made.returncode != 0:
        said = [m["message"] for m in messages if m["reason"] == "compiler-message"]
        errors = [m["rendered"] for m in said if m["level"] == "error"]
        return None, "".join(errors) or made.stderr
    programs = [m["executable"] for m in messages if m.get("executable") and m["profile"]["test"]]
    return programs[-1], ""


def run(program, file, number, most_s):
    """Runs the tests that can catch a change of a file until some turn red; gives those, and the
    processor's time that all took."""
    took = 0
    for tests in tests_of(file):
        red, part = run_some(program, file, number, tests, most_s)
        took += part
        if red:
            return red, took
    return [], took


def run_some(program, file, number, tests, most_s):
    """Runs those of its tests that the words of `tests` choose."""
    crate = crate_of(file)
    where = COPIES / ("tuf" if crate == "tuf" else f"others/{crate}")
    environment = {
        **os.environ,
        "LOCKGATE_MUTANT": str(number),
        # To find names for each failure's calls takes longer than the tests.
        "RUST_BACKTRACE": "0",
        "CARGO_MANIFEST_DIR": str(where.resolve()),
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(
        [program, *tests.split()],
        cwd=where,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        errors="replace",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (most_s, most_s)),
    )
    failed = re.findall(r"^test (?:[a-z0-9_]+::)*([a-z0-9_]+) \.\.\. FAILED$", ended.stdout, re.MULTILINE)
    if ended.returncode == -signal.SIGXCPU:
        failed.append("a test that never ended")
    elif ended.returncode != 0 and not failed:
        failed.append("a test that ended all of them")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return sorted(set(failed)), took


def main():
    fields = pathlib.Path(sys.argv[1]).read_text().split("\0")[:-1]
    words = sys.argv[2:]
    patches = [
        Patch(number, *fields[start : start + 4])
        for number, start in enumerate(range(0, len(fields), 4), 1)
    ]
    for patch in patches:
        found = pathlib.Path(patch.file).read_text().count(patch.old)
        if found != 1:
            hint = "hint: mend scripts/mutants"
            sys.exit(f"{patch.name}: its text stands {found} times in `{patch.file}`; {hint}")
    if words:
        patches = [p for p in patches if any(word in p.name or word in p.file for word in words)]
    COPIES.mkdir(parents=True, exist_ok=True)
    copy_sources()
    borrow_dependencies()
    files = collections.defaultdict(list)
    for patch in patches:
        files[patch.file].append(patch)
    alone = {patch for file, of_it in files.items() for patch in weave(file, of_it)}
    TABLE.write_text("| check taken out | file | tests that turned red, the first three |\n|---|---|---|\n")
    survived, limits, programs = 0, {}, {}
    for patch in sorted(patches, key=lambda patch: (patch in alone, patch.number)):
        crate = crate_of(patch.file)
        copy, true = copy_of(patch.file), None
        if patch in alone:
            true = copy.read_text()
            copy.write_text(pathlib.Path(patch.file).read_text().replace(patch.old, patch.new))
        if crate not in programs or true:
            program, said = build(crate)
            if program is None and not true:
                sys.exit(f"{said}\n{crate} does not compile with its patches; hint: mend scripts/mutants")
            programs[crate] = program
        if true:
            copy.write_text(true)
        folder = programs[crate] and patch.file.rsplit("/", 1)[0]
        if folder and not true and folder not in limits:
            red, took = run(programs[crate], patch.file, 0, UNKNOWN_S)
            if red:
                sys.exit(f"{', '.join(red)}: red before anything is taken out")
            limits[folder] = int(TIMES * took) + SECONDS
        if programs[crate] is None:
            red, outcome = [], f"DOES NOT COMPILE: {said.splitlines()[0]}"
            del programs[crate]
        else:
            red, _ = run(programs[crate], patch.file, patch.number, limits.get(folder, UNKNOWN_S))
            outcome = ", ".join(red[:3]) or "SURVIVED"
        survived += not red
        print(f"{patch.name}: {outcome}", flush=True)
        with TABLE.open("a") as table:
            table.write(f"| {patch.name} | `{patch.file}` | {outcome} |\n")
    print(f"{len(patches)} taken out, {survived} unnoticed")
    sys.exit(survived > 0)


main()
