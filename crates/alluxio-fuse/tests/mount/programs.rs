//! Programs that people run on a dataset, on a mount that can be written.

use std::io;
use std::process::Command;

use crate::writable::Writable;

/// Programs that people run on a dataset. One that is not installed is named and left out.
pub(crate) fn programs_write_what_they_write_on_a_local_disk() {
    Writable::on_each_store(run_programs);
}

fn run_programs(it: Writable) {
    let root = it.at("");
    let script = |name: &str, program: &str, script: &str| {
        let mut command = Command::new(program);
        let flag = if program == "python3" { "-c" } else { "-ec" };
        command.arg(flag).arg(script).current_dir(&root);
        command
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("HOME", "/nonexistent");
        match command.output() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                println!("  left out: {name}, {program} is not installed");
            }
            output => {
                let output = output.unwrap();
                let told = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(output.status.success(), "{name}: {told}");
            }
        }
    };
    script("torch.save (a zip archive)", "python3", ZIP);
    script("safetensors", "python3", SAFETENSORS);
    script("sqlite", "python3", SQLITE);
    script("tar", "sh", TAR);
    if Command::new("git").arg("--version").output().is_ok() {
        script("git clone", "sh", GIT);
    }
    script("cleaning up", "sh", "rm -rf ./*; test -z \"$(ls -A)\"");
    it.end();
}

/// A zip archive is written, and its directory at the end; then read.
const ZIP: &str = r#"
import zipfile, os
data = os.urandom(3_000_000)
with zipfile.ZipFile("model.pt", "w", zipfile.ZIP_STORED) as archive:
    archive.writestr("archive/data.pkl", data[:1000])
    with archive.open("archive/data/0", "w") as part:
        part.write(data)
with zipfile.ZipFile("model.pt") as archive:
    assert archive.testzip() is None
    assert archive.read("archive/data/0") == data
"#;

/// A header of 8 bytes and JSON, then tensors; written beside and renamed, mapped to be read.
const SAFETENSORS: &str = r#"
import json, mmap, os, struct
data = os.urandom(1_000_000)
header = json.dumps({"w": {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}}).encode()
with open("model.safetensors.tmp", "wb") as file:
    file.write(struct.pack("<Q", len(header)) + header)
    file.write(data)
    file.flush()
    os.fsync(file.fileno())
os.replace("model.safetensors.tmp", "model.safetensors")
with open("model.safetensors", "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    assert mapped[8 + len(header):] == data
"#;

/// Transactions with a rollback journal, one of them rolled back, then an integrity check.
const SQLITE: &str = r#"
import sqlite3
with sqlite3.connect("base.db") as base:
    base.execute("create table t (n integer, text text)")
    base.executemany("insert into t values (?, ?)", [(n, "x" * n) for n in range(500)])
base.close()
base = sqlite3.connect("base.db")
base.execute("delete from t")
base.rollback()
base.execute("update t set text = 'y' where n % 2")
base.commit()
base.execute("vacuum")
base.close()
base = sqlite3.connect("base.db")
assert base.execute("pragma integrity_check").fetchone() == ("ok",)
assert base.execute("select count(*), sum(n) from t where text = 'y'").fetchone() == (250, 62500)
base.close()
"#;

/// An archive is packed from a folder and unpacked into another, with modes and times.
const TAR: &str = r"
mkdir -p from/sub
for n in 1 2 3 4 5 6 7 8 9; do head -c ${n}0000 /dev/urandom > from/sub/f$n; done
tar cf archive.tar from
mkdir to
tar xpf archive.tar -C to
diff -r from to/from
";

/// A repository is made, cloned, changed and checked.
const GIT: &str = r#"
git init -q one
cd one
git config user.name n
git config user.email e
for n in 1 2 3; do echo $n > f$n; git add f$n; git commit -qm "$n"; done
cd ..
git clone -q one two
cd two
git fsck --strict
test "$(git log --oneline | wc -l)" = 3
git checkout -q -b other
echo more >> f1
git -c user.name=n -c user.email=e commit -qam more
git status --porcelain | diff - /dev/null
"#;
