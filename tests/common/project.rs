//! The program as users run it in a folder of theirs, without any server.
use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

/// A folder of a user's files.
pub struct Project(tempfile::TempDir);

impl Project {
    /// A folder with these files.
    pub fn new(files: &[(&str, &str)]) -> Self {
        let project = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            let path = project.0.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        project
    }

    /// Runs the program in the folder, with an empty environment.
    pub fn streamer(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().expect("the program starts")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_streamer"));
        command.args(arguments).current_dir(self.0.path()).env_clear();
        command.env("STREAMER_HTTP", "off").env("STREAMER_LOG", "error");
        command
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Runs the program with something on its standard input.
    pub fn pipe(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        // A program that wants no input may be gone before it is written.
        let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
        child.wait_with_output().expect("the program ends")
    }

    /// What lint says, one line a fault, and its exit code.
    pub fn lint(&self) -> (Vec<String>, i32) {
        let output = self.streamer(&["lint", "--format", "concise"]);
        let text = String::from_utf8(output.stdout).unwrap();
        (text.lines().map(str::to_owned).collect(), output.status.code().unwrap())
    }
}

/// What a program printed.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}
