//! `docs/coverage.tsv` has every row of the checklist once, and what it names exists.
#![allow(clippy::unwrap_used, dead_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn text(path: &str) -> Result<String, String> {
    fs::read_to_string(root().join(path)).map_err(|error| format!("{path}: {error}"))
}

/// What a heading's link is called: lower case, dashes for blanks, no other signs.
fn anchor(heading: &str) -> String {
    let lower = heading.trim_start_matches('#').trim().to_lowercase();
    lower
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}

/// Whether a piece of evidence exists: `FILE.rs:FUNCTION`, a test, or `FILE.md#HEADING`.
fn check(evidence: &str) -> Result<(), String> {
    if let Some((path, function)) = evidence.split_once(".rs:") {
        let source = text(&format!("{path}.rs"))?;
        let at = source
            .find(&format!("fn {function}("))
            .ok_or_else(|| format!("{path}.rs has no function {function}"))?;
        let before: Vec<&str> = source[..at].lines().rev().take(8).collect();
        let attributes: Vec<&&str> =
            before.iter().take_while(|line| !line.trim_start().starts_with('}')).collect();
        if !attributes.iter().any(|line| line.trim() == "#[test]") {
            return Err(format!("{function} in {path}.rs is no test"));
        }
        if attributes.iter().any(|line| line.trim().starts_with("#[ignore")) {
            return Err(format!("{function} in {path}.rs is not run"));
        }
        return Ok(());
    }
    let (path, heading) =
        evidence.split_once('#').ok_or_else(|| format!("'{evidence}' is neither a test nor a page"))?;
    let page = text(path)?;
    let found = page.lines().any(|line| line.starts_with('#') && anchor(line) == heading);
    if found { Ok(()) } else { Err(format!("{path} has no heading {heading}")) }
}

#[test]
fn every_row_is_there_once_and_its_evidence_exists() {
    let ids = text("docs/checklist-ids.txt").unwrap();
    let table = text("docs/coverage.tsv").unwrap();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [id, state, evidence] = fields[..] else {
            wrong.push(format!("'{line}' has not three fields"));
            continue;
        };
        *seen.entry(id).or_default() += 1;
        if !ids.lines().any(|known| known == id) {
            wrong.push(format!("{id} is not on the checklist"));
        }
        match state {
            "done" => {
                wrong.extend(
                    evidence.split(", ").filter_map(|one| check(one).err()).map(|e| format!("{id}: {e}")),
                );
            }
            "later" | "refused" if evidence.trim().len() > 8 => {}
            "later" | "refused" => wrong.push(format!("{id}: {state} needs an issue or a reason")),
            other => wrong.push(format!("{id}: '{other}' is no state")),
        }
    }
    for id in ids.lines() {
        match seen.get(id) {
            Some(1) => {}
            Some(count) => wrong.push(format!("{id} is there {count} times")),
            None => wrong.push(format!("{id} is missing")),
        }
    }
    assert!(wrong.is_empty(), "docs/coverage.tsv:\n{}", wrong.join("\n"));
}

/// Links between our own pages lead somewhere.
#[test]
fn links_between_pages_exist() {
    let mut pages = vec!["README.md".to_owned(), "CHANGELOG.md".to_owned()];
    for folder in ["docs", "docs/manual"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if Path::new(&name).extension().is_some_and(|extension| extension == "md") {
                pages.push(format!("{folder}/{name}"));
            }
        }
    }
    let mut wrong = Vec::new();
    for page in &pages {
        let folder = Path::new(page).parent().unwrap();
        for link in text(page).unwrap().split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            if link.contains("://") || link.contains(' ') {
                continue;
            }
            let target =
                if path.is_empty() { page.clone() } else { folder.join(path).to_string_lossy().into_owned() };
            if !root().join(&target).exists() {
                wrong.push(format!("{page}: {link} leads nowhere"));
            } else if !heading.is_empty()
                && let Err(error) = check(&format!("{target}#{heading}"))
            {
                wrong.push(format!("{page}: {error}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
