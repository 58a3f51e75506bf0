//! Pipelines that stand in pages of Markdown, as blocks of `yaml`.
use std::ops::Range;

/// The bytes of every block that is a whole pipeline: marked `yaml` or `yml`, with `inputs` and `outputs` at its top
/// level. A second word after the mark (`yaml,faulty`) says that it is not one to be checked.
pub(super) fn pipelines(text: &str) -> Vec<Range<usize>> {
    struct Open<'a> {
        fence: &'a str,
        is_yaml: bool,
        start: usize,
    }
    let (mut found, mut open, mut at) = (Vec::new(), None::<Open<'_>>, 0);
    for line in text.split_inclusive('\n') {
        let bare = line.trim();
        let mark = |c: char| bare.len() - bare.trim_start_matches(c).len();
        match &open {
            None if mark('`') >= 3 || mark('~') >= 3 => {
                let (fence, info) = bare.split_at(mark('`').max(mark('~')));
                open = Some(Open { fence, is_yaml: matches!(info.trim(), "yaml" | "yml"), start: at + line.len() });
            }
            Some(block) if bare.starts_with(block.fence) && bare.trim_start_matches(&block.fence[..1]).is_empty() => {
                if block.is_yaml && is_pipeline(&text[block.start..at]) {
                    found.push(block.start..at);
                }
                open = None;
            }
            _ => {}
        }
        at += line.len();
    }
    found
}

fn is_pipeline(block: &str) -> bool {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let least = block.lines().filter(|line| !line.trim().is_empty()).map(indent).min().unwrap_or(0);
    let key = |name: &str| block.lines().any(|line| line.get(least..).is_some_and(|line| line.starts_with(name)));
    key("inputs:") && key("outputs:")
}

/// The text with everything but `keep` blanked out: every byte and every line that is kept stays where it is.
pub(super) fn mask(text: &str, keep: &Range<usize>) -> String {
    let blank = |part: &str| part.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect::<String>();
    [&blank(&text[..keep.start]), &text[keep.clone()], &blank(&text[keep.end..])].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_pipelines_are_found() {
        let page = "# °C\n```yaml\nqos: 1\n```\n1. x\n   ~~~~yml\n   inputs: {}\n   ~~~\n   outputs: {}\n   ~~~~\n\
            ```yaml,faulty\ninputs: {}\noutputs: {}\n```\n```sh\ninputs:\noutputs:\n```\n````yaml\n# a\noutputs: 1\ninputs: 2\n````\n```yaml\ninputs: 1\noutputs: 2\n";
        let found: Vec<&str> = pipelines(page).into_iter().map(|range| &page[range]).collect();
        assert_eq!(found, ["   inputs: {}\n   ~~~\n   outputs: {}\n", "# a\noutputs: 1\ninputs: 2\n"]);
    }

    #[test]
    fn what_is_kept_stays_in_its_place() {
        let page = "°C\nab\nµ\n";
        let masked = mask(page, &(4..6));
        assert_eq!(masked, "   \nab\n  \n");
        assert_eq!((masked.len(), masked.lines().count()), (page.len(), page.lines().count()));
    }
}
