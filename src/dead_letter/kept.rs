//! What of a dead letter lies in files, because the dead-letter topic had refused it: payloads, keys and headers.
use std::path::{Path, PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use sha2::{Digest as _, Sha256};

use super::envelope::Envelope;

/// The folder of such files.
#[derive(Clone, Debug)]
pub struct Kept {
    folder: PathBuf,
}

impl Kept {
    /// The folder below `state`, where `streamer run` has its state.
    pub fn below(state: &Path) -> Self {
        Self { folder: state.join("dead-letter") }
    }

    /// Puts back into the letter what of it lies in files.
    ///
    /// # Errors
    /// A file is missing, or is not what the letter says: which, and where it was looked for.
    pub fn fill(&self, envelope: &mut Envelope) -> Result<(), String> {
        if envelope.payload().is_none() {
            let named = envelope.payload_file.as_deref().ok_or("it has neither a payload nor the name of a file")?;
            let bytes = self.read(named)?;
            let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            // The name comes from a topic that others may write to: nothing but the letter's own payload is taken.
            if envelope.payload_sha256.as_deref() != Some(&digest) {
                return Err(format!(
                    "the file `{named}` is not the payload that the letter describes: its hash is another"
                ));
            }
            match String::from_utf8(bytes) {
                Ok(text) => envelope.payload = Some(text),
                Err(error) => envelope.payload_base64 = Some(BASE64.encode(error.as_bytes())),
            }
        }
        if let Some(named) = envelope.source.file.take() {
            let bytes = self.read(&named)?;
            let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            if Path::new(&named).file_stem().is_none_or(|stem| *stem != *digest) {
                return Err(format!("the file `{named}` does not hold what its name says: its hash is another"));
            }
            envelope
                .put_back(&bytes)
                .map_err(|error| format!("the file `{named}` holds no key and headers: {error}"))?;
        }
        Ok(())
    }

    /// The file of that name in the folder; else where the letter says it was written.
    fn read(&self, named: &str) -> Result<Vec<u8>, String> {
        let here = Path::new(named).file_name().map(|name| self.folder.join(name));
        let here = here.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(named));
        std::fs::read(&here).map_err(|error| {
            format!(
                "its file `{named}` cannot be read ({error}); it was looked for in `{}`, too: say with --state-dir where the \
                 pipeline has its state",
                self.folder.display()
            )
        })
    }
}
