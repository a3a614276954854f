//! The blocks of code in the documents, for the tests that run them.

use std::fs;
use std::path::{Path, PathBuf};

/// A block between two lines of backticks.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    /// The document, from the root of the project.
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) language: String,
    pub(crate) text: String,
}

impl Block {
    /// What a reader runs at once: the lines of a shell block, without comments, or else the whole block.
    pub(crate) fn commands(&self) -> Vec<&str> {
        let lines = self.text.lines().filter(|line| !line.is_empty());
        match self.language.as_str() {
            "sh" if !self.text.starts_with("#!") => lines.filter(|line| !line.starts_with('#')).collect(),
            "" => lines.filter_map(|line| line.strip_prefix("$ ")).collect(),
            _ => vec![&self.text],
        }
    }
}

/// The root of the project.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README.md and its neighbours, and the guides.
pub(crate) fn documents() -> Vec<PathBuf> {
    let guides = fs::read_dir(root().join("docs")).expect("docs/ is there");
    let guides = guides.map(|entry| entry.expect("a file").path());
    let mut documents: Vec<PathBuf> = ["README.md", "CONTRIBUTING.md", "SECURITY.md"]
        .map(|name| root().join(name))
        .into_iter()
        .chain(guides)
        .collect();
    documents.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    documents.sort();
    documents
}

/// All blocks of all documents.
pub(crate) fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    for path in documents() {
        let text = fs::read_to_string(&path).expect("a document can be read");
        let file = path.strip_prefix(root()).expect("it is below the root").display().to_string();
        let mut open: Option<Block> = None;
        for (number, line) in text.lines().enumerate() {
            match (line.trim_start().strip_prefix("```"), &mut open) {
                (Some(language), None) => {
                    let (file, language) = (file.clone(), language.to_owned());
                    open = Some(Block { file, line: number + 1, language, text: String::new() });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (None, Some(block)) => block.text += &format!("{line}\n"),
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{open:?} is not closed");
    }
    blocks
}

/// The one block of a document that begins with these words, or else the one that has them.
pub(crate) fn block(file: &str, words: &str) -> Block {
    let blocks: Vec<Block> = blocks().into_iter().filter(|block| block.file == file).collect();
    let begins: Vec<&Block> = blocks.iter().filter(|block| block.text.starts_with(words)).collect();
    let has: Vec<&Block> = blocks.iter().filter(|block| block.text.contains(words)).collect();
    match (&begins[..], &has[..]) {
        ([block], _) | (_, [block]) => (*block).clone(),
        _ => panic!("{file} has {} blocks with {words:?}", has.len()),
    }
}

/// The first command of a document that begins with these words, without its comment.
pub(crate) fn command(file: &str, words: &str) -> String {
    let blocks = blocks();
    let commands = blocks.iter().filter(|block| block.file == file).flat_map(Block::commands);
    let mut commands = commands.filter(|command| command.starts_with(words));
    let command = commands.next().unwrap_or_else(|| panic!("{file} has no command {words:?}"));
    command.split("  #").next().expect("the part before").trim_end().to_owned()
}
