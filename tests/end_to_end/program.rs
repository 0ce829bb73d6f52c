//! Runs the binary and reads what it leaves behind.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

/// What a run of the binary left behind.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `deltaworks` in a folder.
pub(crate) fn deltaworks(folder: &Path, arguments: &[&str]) -> Run {
    let output = Command::new(env!("CARGO_BIN_EXE_deltaworks")).current_dir(folder).args(arguments).output().unwrap();
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
/// Writes a script into a folder and runs it with JSON output.
pub(crate) fn script(folder: &Path, sql: &str, arguments: &[&str]) -> Run {
    std::fs::write(folder.join("job.sql"), sql).unwrap();
    let mut all = vec!["run", "job.sql", "--format", "json"];
    all.extend(arguments);
    deltaworks(folder, &all)
}
/// Gives a script to the shell, which goes on after an error.
pub(crate) fn shell(folder: &Path, sql: &str) -> Run {
    shell_of(folder, sql, &[])
}
/// Gives a file of the folder to the shell.
pub(crate) fn shell_with(folder: &Path, file: &str, arguments: &[&str]) -> Run {
    shell_of(folder, &std::fs::read_to_string(folder.join(file)).unwrap(), arguments)
}
fn shell_of(folder: &Path, sql: &str, arguments: &[&str]) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_deltaworks"))
        .current_dir(folder)
        .args(["shell", "--format", "json"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
/// A run that goes on until it is stopped.
pub(crate) struct Running(Child, PathBuf);
impl Running {
    /// Writes a script into a folder and starts it. What it says goes to `said.txt`.
    pub(crate) fn start(folder: &Path, sql: &str) -> Running {
        Running::start_with(folder, sql, &[])
    }
    /// The same with more arguments.
    pub(crate) fn start_with(folder: &Path, sql: &str, arguments: &[&str]) -> Running {
        std::fs::write(folder.join("job.sql"), sql).unwrap();
        let said = folder.join("said.txt");
        let mut command = Command::new(env!("CARGO_BIN_EXE_deltaworks"));
        command.current_dir(folder).args(["run", "job.sql"]).args(arguments).stdout(Stdio::null());
        Running(command.stderr(File::create(&said).unwrap()).spawn().unwrap(), said)
    }
    /// The number of its process.
    pub(crate) fn process(&self) -> u32 {
        self.0.id()
    }
    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
    /// Asks for a clean stop; returns the exit code and what was said.
    pub(crate) fn stop(mut self) -> (Option<i32>, String) {
        self.signal("INT");
        let code = self.0.wait().unwrap().code();
        (code, std::fs::read_to_string(&self.1).unwrap())
    }
}
impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
/// Waits until a file holds a text; gives up after long enough for any machine.
pub(crate) fn wait_for(path: &Path, text: &str) {
    for _ in 0..1200 {
        if std::fs::read_to_string(path).is_ok_and(|found| found.contains(text)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let said = std::fs::read_to_string(path.with_file_name("said.txt")).unwrap_or_default();
    panic!("{} never held {text}: {:?}\n{said}", path.display(), std::fs::read_to_string(path));
}
/// A path of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Folds a changelog file to its final rows, as text, without `_tech_write_ts`, by their first field. Every retraction must
/// take back exactly the row that is there.
pub(crate) fn fold(path: &Path) -> Vec<String> {
    let mut rows: BTreeMap<String, String> = BTreeMap::new();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        let row = line[line.find("\"row\":").unwrap() + 6..line.len() - 1].to_string();
        let key = row.split(',').next().unwrap().to_string();
        match entry["op"].as_str().unwrap() {
            "+I" | "+U" => {
                assert!(rows.insert(key, row).is_none(), "a row was inserted over another: {line}");
            }
            _ => assert_eq!(rows.remove(&key), Some(row), "a retraction of a row that is not there: {line}"),
        }
    }
    let bare = |row: String| match row.find(",\"_tech_write_ts\":") {
        Some(at) => format!("{}}}", &row[..at]),
        None => row,
    };
    rows.into_values().map(bare).collect()
}
/// The lines of a golden file.
pub(crate) fn golden(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap().lines().map(str::to_string).collect()
}
