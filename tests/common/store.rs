//! An object store: the S3 of moto, a real server with a real protocol, which keeps what it has in memory.
use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::{Case, MQTT_TO_KAFKA, equal, eventually, http, root, streamer};

/// Where the Python packages are that tests use.
pub fn packages() -> String {
    let packages = Command::new("python3").args(["services/stack.py", "python"]).current_dir(root()).output();
    String::from_utf8(packages.expect("python3 can be started").stdout).expect("a path").trim().to_owned()
}

/// An S3-compatible store with the bucket `archive`, for as long as this lives.
pub struct ObjectStore {
    server: std::process::Child,
    pub address: String,
    log: PathBuf,
}

impl ObjectStore {
    pub fn start(case: &Case) -> Self {
        let port = streamer::free_port();
        let (log, address) = (case.folder().join("store.log"), format!("127.0.0.1:{port}"));
        let store = Self { server: Self::serve(&address, &log), address, log };
        store.make_bucket();
        store
    }

    fn serve(address: &str, log: &Path) -> std::process::Child {
        let (host, port) = address.split_once(':').expect("an address has a port");
        let log = std::fs::File::options().create(true).append(true).open(log).expect("a log");
        Command::new("python3")
            .args(["-m", "moto.server", "-H", host, "-p", port])
            .env("PYTHONPATH", packages())
            .stdout(log.try_clone().expect("a file handle can be copied"))
            .stderr(log)
            .spawn()
            .expect("python3 can be started")
    }

    /// What it holds is gone with it.
    pub fn kill(&mut self) {
        self.server.kill().expect("a child can be killed");
        self.server.wait().expect("a child can be waited for");
    }

    /// Comes again as a new one, without the bucket.
    pub fn start_again(&mut self) {
        self.server = Self::serve(&self.address, &self.log);
    }

    #[track_caller]
    pub fn make_bucket(&self) {
        eventually("the object store makes a bucket", || {
            let (status, body) = http::request("PUT", &self.address, "/archive", "", b"")?;
            equal(status, 200).map_err(|wrong| format!("{wrong}: {body}"))
        });
    }

    /// The settings that lead here.
    pub fn options(&self) -> [(&'static str, String); 5] {
        [
            ("aws_endpoint", format!("http://{}", self.address)),
            ("aws_allow_http", "true".to_owned()),
            ("aws_region", "us-east-1".to_owned()),
            ("aws_access_key_id", "id".to_owned()),
            ("aws_secret_access_key", "hunter2-secret".to_owned()),
        ]
    }

    /// The shipped pipeline from MQTT, whose files go here, often.
    pub fn pipeline(&self, case: &Case) -> PathBuf {
        let old = "    path: ${ARCHIVE_DIR:-../archive}/mqtt-to-kafka\n";
        let options = self.options().map(|(name, value)| format!("{name}: '{value}'")).join(", ");
        let new = format!(
            "{old}    url: s3://archive/some/where\n    options: {{ {options} }}\n    roll_bytes: 1048576\n    roll_s: 1\n"
        );
        case.changed(MQTT_TO_KAFKA, &[(old, &new)])
    }

    /// Puts every Parquet file below a folder under `prefix`.
    #[track_caller]
    pub fn put(&self, folder: &Path, prefix: &str) {
        let script = "import boto3, pathlib, sys\n\
            s3 = boto3.client('s3', endpoint_url=sys.argv[1], aws_access_key_id='id', aws_secret_access_key='hunter2-secret', region_name='us-east-1')\n\
            folder = pathlib.Path(sys.argv[2])\n\
            for path in folder.rglob('*.parquet'):\n\
            \x20   s3.upload_file(str(path), 'archive', sys.argv[3] + '/' + str(path.relative_to(folder)))\n";
        let url = format!("http://{}", self.address);
        let mut command = Command::new("python3");
        let done = command.args(["-c", script, &url]).arg(folder).arg(prefix).env("PYTHONPATH", packages()).output();
        let done = done.expect("python3 can be started");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// Copies every object to a folder.
    #[track_caller]
    pub fn fetch(&self, to: &Path) {
        let script = "import boto3, pathlib, sys\n\
            s3 = boto3.client('s3', endpoint_url=sys.argv[1], aws_access_key_id='id', aws_secret_access_key='hunter2-secret', region_name='us-east-1')\n\
            for page in s3.get_paginator('list_objects_v2').paginate(Bucket='archive'):\n\
            \x20   for found in page.get('Contents', []):\n\
            \x20       path = pathlib.Path(sys.argv[2], found['Key'])\n\
            \x20       path.parent.mkdir(parents=True, exist_ok=True)\n\
            \x20       s3.download_file('archive', found['Key'], str(path))\n";
        let url = format!("http://{}", self.address);
        let mut command = Command::new("python3");
        let done = command.args(["-c", script, &url]).arg(to).env("PYTHONPATH", packages()).output().expect("python3");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    pub fn signal(&self, name: &str) {
        let done = Command::new("kill").args(["-s", name, &self.server.id().to_string()]).status();
        assert!(done.expect("kill can be started").success());
    }
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
