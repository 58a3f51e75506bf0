//! Dead letters in a local file, one a line, and the marks beside it.
use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
};

use super::{
    found::{Found, StoreError},
    mark::{Id, Mark},
};

/// A file of dead letters.
#[derive(Clone, Debug)]
pub struct LetterFile {
    path: PathBuf,
}

/// Reads the letters, then the marks.
pub struct FileReader {
    path: PathBuf,
    letters: BufReader<io::Take<File>>,
    marks: Option<BufReader<io::Take<File>>>,
    line: i64,
}

/// Writes marks.
pub struct FileMarker {
    path: PathBuf,
    file: File,
    pipeline: String,
    to: String,
}

fn failed(tried: &str, path: &Path, error: &io::Error) -> StoreError {
    StoreError(format!("cannot {tried} `{}`: {error}", path.display()))
}

/// The file up to the end that it has now.
fn as_of_now(path: &Path) -> io::Result<BufReader<io::Take<File>>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    Ok(BufReader::new(file.take(length)))
}

impl LetterFile {
    /// The file at `path`.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn marks(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".redriven");
        name.into()
    }

    /// Opens it for reading. Marks that come meanwhile are not seen, as letters are not.
    pub(super) fn open(&self) -> Result<FileReader, StoreError> {
        let letters = as_of_now(&self.path).map_err(|error| failed("read the dead letters in", &self.path, &error))?;
        let marks = match as_of_now(&self.marks()) {
            Ok(marks) => Some(marks),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed("read the marks in", &self.marks(), &error)),
        };
        Ok(FileReader { path: self.path.clone(), letters, marks, line: 0 })
    }

    /// Opens the file of marks for writing at its end.
    pub(super) fn marker(&self, pipeline: &str, to: &str) -> Result<FileMarker, StoreError> {
        let path = self.marks();
        let file = File::options().append(true).create(true).open(&path);
        let file = file.map_err(|error| failed("write marks to", &path, &error))?;
        Ok(FileMarker { path, file, pipeline: pipeline.to_owned(), to: to.to_owned() })
    }
}

impl Iterator for FileReader {
    type Item = Result<Found, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            match self.letters.read_until(b'\n', &mut bytes) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Some(Err(failed("read", &self.path, &error))),
            }
            self.line += 1;
            let line = bytes.trim_ascii();
            if !line.is_empty() {
                let id = Id { partition: None, offset: self.line, digest: xxhash_rust::xxh3::xxh3_64(line).max(1) };
                return Some(Ok(Found::of(id, line)));
            }
        }
        let marks = self.marks.as_mut()?;
        bytes.clear();
        match marks.read_until(b'\n', &mut bytes) {
            Ok(0) => None,
            // A line that a crash has left unfinished marks nothing: its letters are redriven again.
            Ok(_) => Some(Ok(Found::Mark(serde_json::from_slice::<Mark>(&bytes).map_or(Vec::new(), |m| m.in_file())))),
            Err(error) => Some(Err(failed("read the marks beside", &self.path, &error))),
        }
    }
}

impl FileMarker {
    pub(super) fn mark(&mut self, letters: &[Id]) -> Result<(), StoreError> {
        // The line end before keeps a mark from running into one that a crash has left unfinished.
        let mut line = b"\n".to_vec();
        line.extend(Mark::new(&self.pipeline, &self.to, letters).json());
        line.push(b'\n');
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        written.map_err(|error| failed("write marks to", &self.path, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LETTER: &str = r#"{"version":1,"pipeline":"p","stage":"steps[0]","code":"c","reason":"r","time":"2026-01-01T00:00:00Z","source":{"input":"mqtt"},"payload":"x"}"#;

    fn read(file: &LetterFile) -> (Vec<Id>, Vec<Id>, Vec<String>) {
        let (mut letters, mut marks, mut foreign) = Default::default();
        for found in file.open().unwrap() {
            match found.unwrap() {
                Found::Letter(letter) => Vec::push(&mut letters, letter.id),
                Found::Mark(ids) => Vec::extend(&mut marks, ids),
                Found::Foreign(id, why) => Vec::push(&mut foreign, format!("{id}: {why}")),
            }
        }
        (letters, marks, foreign)
    }

    #[test]
    fn letters_are_lines_and_marks_stand_beside_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = LetterFile::new(folder.path().join("dead.jsonl"));
        assert!(file.open().err().unwrap().to_string().contains("No such file"));
        std::fs::write(file.path(), format!("{LETTER}\n\nnonsense\n{LETTER}\n{}", &LETTER[..20])).unwrap();
        let (letters, marks, foreign) = read(&file);
        assert_eq!(letters.iter().map(|id| id.offset).collect::<Vec<_>>(), [1, 4]);
        assert_eq!((marks, foreign.len()), (vec![], 2), "{foreign:?}");

        file.marker("p", "steps").unwrap().mark(&letters[1..]).unwrap();
        // The crash came in the middle of a mark.
        std::fs::OpenOptions::new().append(true).open(file.marks()).unwrap().write_all(b"{\"version\":1,").unwrap();
        file.marker("p", "steps").unwrap().mark(&letters[..1]).unwrap();
        let (_, marks, _) = read(&file);
        assert_eq!(marks, [letters[1], letters[0]]);
    }

    #[test]
    fn a_mark_does_not_hit_another_letter_on_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = LetterFile::new(folder.path().join("dead.jsonl"));
        std::fs::write(file.path(), LETTER).unwrap();
        let (letters, ..) = read(&file);
        file.marker("p", "steps").unwrap().mark(&letters).unwrap();
        std::fs::write(file.path(), LETTER.replace("\"x\"", "\"y\"")).unwrap();
        let (letters, marks, _) = read(&file);
        assert_ne!(letters, marks);
    }
}
