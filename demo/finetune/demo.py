#!/usr/bin/env python3
"""The whole way, once: train, publish every step, follow, prove, rebuild.

Two processes meet only in a bucket, a plain directory. One fine-tunes a pretrained model and
publishes its weights after every step (train.py); the other is `siltstone pull --follow`, which
moves its own copy in place and calls prove.py after each version. This script starts both, prints
what they report, and at the end rebuilds every version from the bucket. It exits 0 only if every
version was proven bit-identical and every rebuilt file has the SHA-256 of the trainer's.
"""

import argparse
import hashlib
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import prove  # noqa: E402
from run_folder import Failure, make_empty, megabytes  # noqa: E402

WEIGHTS = "model.safetensors"
STALLED_SECONDS = 150
COLUMNS = ("step", "loss", "changed", "written", "fetched", "of full", "bits/chg", "publish",
           "stage", "commit", "proven")
WIDTHS = (4, 7, 8, 9, 9, 8, 8, 8, 8, 8, 6)


def tail_of(path, lines=15):
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


class JsonLines:
    """Reads the whole lines that another process has appended so far."""

    def __init__(self, path):
        self.path = path
        self.offset = 0

    def new(self):
        if not self.path.exists():
            return []
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            data = file.read()
        whole = data[:data.rfind(b"\n") + 1]
        self.offset += len(whole)
        return [json.loads(line) for line in whole.splitlines() if line.strip()]


class Child:
    """A process in a group of its own, its output in files, ended with whatever it started."""

    def __init__(self, name, command, stdout, stderr):
        self.name = name
        self.log = stderr
        with open(stdout, "wb") as out, open(stderr, "wb") as err:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out,
                                            stderr=err, start_new_session=True)

    def running(self):
        """False after exit 0; any other exit is a failure of the demo."""
        status = self.process.poll()
        if status is None:
            return True
        if status != 0:
            raise Failure(f"the {self.name} ended with status {status}:\n{tail_of(self.log)}")
        return False

    def end(self):
        for how in (signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is not None:
                return
            os.killpg(self.process.pid, how)
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                continue


class Demo:
    def __init__(self, options):
        self.options = options
        self.run = options.run.resolve()
        self.bucket = self.run / "bucket"
        self.trainer = self.run / "trainer"
        self.replica = self.run / "replica"
        self.deadline = time.monotonic() + options.timeout_seconds
        self.children = []
        self.full_bytes = 0
        self.rows = []

    def siltstone(self, *arguments):
        """Runs one verb with --json and returns its document."""
        command = [self.options.siltstone, *map(str, arguments), "--json"]
        left = max(1.0, self.deadline - time.monotonic())
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                  check=False, timeout=left)
        except subprocess.TimeoutExpired:
            raise Failure(f"timed out: {shlex.join(command)}") from None
        if done.returncode != 0:
            raise Failure(f"{shlex.join(command)} exited {done.returncode}:\n{done.stderr.strip()}")
        return json.loads(done.stdout)

    def prepare(self):
        make_empty(self.run)
        self.siltstone("init", self.bucket)

    def start(self):
        proofs = self.run / "proofs.jsonl"
        on_update = shlex.join([sys.executable, str(HERE / "prove.py"), "--trainer",
                                str(self.trainer), "--log", str(proofs)])
        self.follower = Child(
            "follower",
            [self.options.siltstone, "pull", str(self.bucket), str(self.replica), "--follow",
             "--until", str(self.options.steps), "--interval", "0.2", "--on-update", on_update,
             "--json"],
            self.run / "follow.jsonl", self.run / "follow.log")
        self.children.append(self.follower)
        self.training = Child(
            "trainer",
            [sys.executable, str(HERE / "train.py"), "--out", str(self.trainer), "--events",
             str(self.run / "train.jsonl"), "--steps", str(self.options.steps), "--siltstone",
             self.options.siltstone, "--bucket", str(self.bucket), "--proofs", str(proofs)],
            self.run / "train.out", self.run / "train.log")
        self.children.append(self.training)

    def watch(self):
        """Prints a row as soon as a version is published, pulled and proven."""
        streams = {name: JsonLines(self.run / f"{name}.jsonl")
                   for name in ("train", "follow", "proofs")}
        seen = {name: {} for name in streams}
        progress = time.monotonic()
        print(f"fine-tuning all-MiniLM-L6-v2 for {self.options.steps} steps; the follower reads "
              f"nothing but {self.bucket}\nwritten: bytes a publish put into the bucket; fetched: "
              "bytes the follower read; of full: fetched against the model's file", flush=True)
        print("  ".join(name.rjust(width) for name, width in zip(COLUMNS, WIDTHS)))
        while len(self.rows) <= self.options.steps:
            training, following = self.training.running(), self.follower.running()
            for name, stream in streams.items():
                for line in stream.new():
                    step = self.step_of(name, line)
                    if step is not None:
                        seen[name][step] = line
                        progress = time.monotonic()
            step = len(self.rows)
            if all(step in found for found in seen.values()):
                self.add_row(seen["train"][step], seen["follow"][step], seen["proofs"][step])
                continue
            newest = max(seen["follow"], default=-1)
            if newest > step and step not in seen["follow"]:
                raise Failure(f"the follower went to main@{newest} without main@{step}")
            if not training and not following:
                raise Failure(f"both processes have ended, but main@{step} is not complete "
                              f"(seen by: {[n for n, found in seen.items() if step in found]})")
            self.check_time(progress)
            time.sleep(0.05)
        while self.training.running() or self.follower.running():
            self.check_time(progress)
            time.sleep(0.05)

    @staticmethod
    def step_of(stream, line):
        if stream == "train":
            return line["step"]
        version = line.get("to" if stream == "follow" else "version")
        return None if version is None else int(str(version).rpartition("@")[2])

    def check_time(self, progress):
        now = time.monotonic()
        if now > self.deadline:
            raise Failure(f"not done within {self.options.timeout_seconds:.0f} s")
        if now - progress > STALLED_SECONDS:
            raise Failure(f"nothing happened for {STALLED_SECONDS} s; trainer:\n"
                          f"{tail_of(self.training.log)}\nfollower:\n{tail_of(self.follower.log)}")

    def add_row(self, train, pull, proof):
        step, publish = train["step"], train["publish"]
        weights = pathlib.Path(train["folder"]) / WEIGHTS
        self.full_bytes = weights.stat().st_size
        changed = publish.get("changed_elements")
        total = publish.get("total_elements")
        share = changed / total if step > 0 and changed is not None and total else None
        bits = publish.get("bits_per_changed_element") if step > 0 else None
        row = {
            "step": step, "loss": train["loss"], "kind": publish["kind"],
            "held_out_loss": train.get("held_out_loss"), "changed": share, "bits": bits,
            "written": publish["bytes_written"], "fetched": pull["bytes_fetched"],
            "full_bytes": self.full_bytes, "train_seconds": train["train_seconds"],
            "publish_seconds": publish["wall_seconds"], "stage_seconds": pull["stage_seconds"],
            "commit_seconds": pull["commit_seconds"], "proof_seconds": proof["seconds"],
            "tensor_bytes_compared": proof["tensor_bytes"], "proven": proof["proven"],
            "root": publish["root"],
        }
        self.rows.append(row)
        cells = (
            str(step),
            "-" if row["loss"] is None else f"{row['loss']:.4f}",
            row["kind"] if share is None else f"{share:.2%}",
            megabytes(row["written"]), megabytes(row["fetched"]),
            f"{row['fetched'] / self.full_bytes:.2%}",
            "-" if not bits else f"{bits:.2f}",
            f"{row['publish_seconds']:.2f} s", f"{row['stage_seconds']:.2f} s",
            f"{row['commit_seconds'] * 1e3:.1f} ms", "yes" if row["proven"] else "NO")
        print("  ".join(cell.rjust(width) for cell, width in zip(cells, WIDTHS)), flush=True)
        if not proof["proven"]:
            raise Failure(f"{proof['version']} is not what the trainer wrote: {proof['problems']}")
        if not publish["root"] == pull["root"] == proof["root"]:
            raise Failure(f"main@{step}: roots differ: published {publish['root']}, pulled "
                          f"{pull['root']}, given to the prover {proof['root']}")

    def rebuild(self, step, folder):
        """Checks one version out and compares the SHA-256 of every file. Returns their number."""
        self.siltstone("checkout", self.bucket, f"main@{step}", folder)
        source = self.trainer / f"step_{step:04d}"
        names = prove.files_of(source)
        if names != prove.files_of(folder):
            raise Failure(f"main@{step}: the rebuilt folder holds other files than the trainer's: "
                          f"{sorted(map(str, names ^ prove.files_of(folder)))}")
        for name in sorted(names):
            wanted, found = sha256_of(source / name), sha256_of(folder / name)
            if wanted != found:
                raise Failure(f"main@{step}: {name}: SHA-256 {found}, the trainer's is {wanted}")
        return len(names)

    def rebuild_all(self):
        last = self.options.steps
        kept = sorted({0, last // 2, last})
        for step in kept:
            folder = self.run / "checkout" / f"step_{step:04d}"
            files = self.rebuild(step, folder)
            digest = sha256_of(folder / WEIGHTS)
            print(f"main@{step} into an empty folder: {files} files, every SHA-256 equal "
                  f"({WEIGHTS} {digest[:16]}...)", flush=True)
        scratch = self.run / "checkout" / "scratch"
        for step in range(last + 1):
            if step not in kept:
                self.rebuild(step, scratch)
                shutil.rmtree(scratch)
        print(f"all {last + 1} versions rebuilt the same way: every SHA-256 equal", flush=True)

    def check_the_prover(self):
        """A proof is worth something only if one flipped bit is noticed."""
        last = self.options.steps
        copy = self.run / "checkout" / "flipped"
        shutil.copytree(self.run / "checkout" / f"step_{last:04d}", copy)
        with open(copy / WEIGHTS, "r+b") as file:
            file.seek(-self.full_bytes // 2, os.SEEK_END)
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 1]))
        problems = prove.compare_folders(self.trainer / f"step_{last:04d}", copy)[3]
        shutil.rmtree(copy)
        if not problems:
            raise Failure("the prover did not notice a flipped bit")
        print(f"the prover, shown a copy with one flipped bit: {problems[0]}")

    def summarize(self):
        report = self.siltstone("verify", self.bucket, "--data")
        if report["ok"] is not True or report["versions"] != len(self.rows):
            raise Failure(f"verify --data: {json.dumps(report)[:2000]}")
        print(f"verify --data: {report['versions']} versions, {megabytes(report['bytes'])} read, ok")

        bucket_bytes = sum(p.stat().st_size for p in self.bucket.rglob("*") if p.is_file())
        checkpoints = sum(p.stat().st_size for p in self.trainer.rglob("*") if p.is_file())
        deltas = [row for row in self.rows[1:] if row["changed"] is not None]
        fetched = sum(row["fetched"] for row in self.rows[1:])
        first, last = (row["held_out_loss"] for row in (self.rows[0], self.rows[-1]))
        print(f"bucket: {megabytes(bucket_bytes)} for {len(self.rows)} versions; as full "
              f"checkpoints: {megabytes(checkpoints)} ({checkpoints / bucket_bytes:.1f} times)")
        if deltas:
            shipped = fetched / (len(self.rows) - 1)
            print(f"a step ships {megabytes(shipped)} on average, {self.full_bytes / shipped:.1f} "
                  f"times less than the model ({megabytes(self.full_bytes)}); "
                  f"{sum(r['changed'] for r in deltas) / len(deltas):.2%} of the words change")
        print("loss on held-out text: " + " -> ".join(
            f"{row['held_out_loss']:.4f}" for row in self.rows if row["held_out_loss"] is not None)
            + ("" if last < first else " (it did not fall)"))
        summary = {"machine": machine(), "rows": self.rows, "bucket_bytes": bucket_bytes, "verify": report,
                   "checkpoint_bytes": checkpoints, "follower_fetched_bytes": fetched}
        (self.run / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")

    def end(self):
        for child in self.children:
            child.end()


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def machine():
    models = {line.partition(":")[2].strip() for line in open("/proc/cpuinfo", encoding="utf-8")
              if line.startswith("model name")}
    return f"{os.cpu_count()} cores, {', '.join(sorted(models)) or 'unknown processor'}"


def interrupted(number, _frame):
    raise Failure(f"stopped by signal {number}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=pathlib.Path, default=HERE.parents[1] / "finetune-run",
                        help="folder for everything the demo writes; an earlier run is removed")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--siltstone", default=str(HERE.parents[1] / "build" / "siltstone"))
    parser.add_argument("--timeout-seconds", type=float, default=540)
    options = parser.parse_args()
    if options.steps < 1:
        parser.error("--steps must be at least 1")
    signal.signal(signal.SIGTERM, interrupted)

    start = time.monotonic()
    demo = Demo(options)
    try:
        demo.prepare()
        demo.start()
        demo.watch()
        print(f"every version compared with the trainer's files: {len(demo.rows)} of "
              f"{options.steps + 1} bit-identical")
        demo.rebuild_all()
        demo.check_the_prover()
        demo.summarize()
    except (Failure, OSError, KeyError, ValueError) as failure:
        print(f"\ndemo: FAILED: {type(failure).__name__}: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted", file=sys.stderr)
        return 130
    finally:
        demo.end()
    print(f"demo: passed in {time.monotonic() - start:.0f} s; everything is in {options.run}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
