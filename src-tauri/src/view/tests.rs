//! Writes the TypeScript of these types and of the commands, and fails when what is committed differs.

use std::{any::TypeId, collections::BTreeMap, fmt::Write as _, path::PathBuf};

use ts_rs::{Config, TS, TypeVisitor};

use super::{Change, View};
use crate::view;

const NOTE: &str = "// Made from src-tauri by its tests; do not edit. `POSTERN_WRITE_TYPES=1 cargo test -p postern-desktop` writes it.\n";

/// Compares a file of `ui/src/lib/generated` with what it should hold, or writes it.
pub(crate) fn keep(name: &str, wanted: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../ui/src/lib/generated").join(name);
    if std::env::var_os("POSTERN_WRITE_TYPES").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, wanted).unwrap();
        return;
    }
    let held = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        held == wanted,
        "{} is out of step: run `POSTERN_WRITE_TYPES=1 cargo test -p postern-desktop`",
        path.display()
    );
}

#[derive(Default)]
struct Declarations {
    config: Config,
    seen: Vec<TypeId>,
    by_name: BTreeMap<String, String>,
}

impl TypeVisitor for Declarations {
    fn visit<T: TS + 'static + ?Sized>(&mut self) {
        if self.seen.contains(&TypeId::of::<T>()) {
            return;
        }
        self.seen.push(TypeId::of::<T>());
        if T::output_path().is_some() {
            let docs = T::docs().unwrap_or_default();
            self.by_name.insert(T::ident(&self.config), format!("{docs}export {}\n", T::decl(&self.config)));
        }
        T::visit_dependencies(self);
        T::visit_generics(self);
    }
}

fn declarations() -> BTreeMap<String, String> {
    let config = Config::new().with_large_int("number");
    let mut all = Declarations { config, ..Declarations::default() };
    all.visit::<View>();
    all.visit::<Change>();
    all.visit::<view::AddressVerdict>();
    all.visit::<view::Changed>();
    all.visit::<view::Clip>();
    all.visit::<view::Copied>();
    all.visit::<view::KeyChoice>();
    all.visit::<view::LogExport>();
    all.visit::<view::NameTrial>();
    all.visit::<view::PortVerdict>();
    all.visit::<view::QuitAnswer>();
    all.visit::<view::SavedFile>();
    all.visit::<view::SignInRequest>();
    all.visit::<view::Which>();
    all.by_name
}

#[test]
fn the_types_of_the_front_end_are_those_of_the_app() {
    let text = declarations().into_values().fold(NOTE.to_owned(), |text, one| text + "\n" + &one);
    keep("types.ts", &text);
}

/// What the service says about each cause, for the tables of other languages.
#[test]
fn the_sentences_to_be_translated_are_those_of_the_service() {
    use postern_local_api::cause::{Cause, Explanation};
    let mut text =
        NOTE.to_owned() + "\n/** Sentences of the service about each cause, with made-up names and numbers. */\n";
    text += "export const CAUSES: readonly { code: string; what: string; why: string; remedy: string }[] = [\n";
    for cause in Cause::examples().iter().filter(|cause| !matches!(cause, Cause::Refused(_))) {
        let Explanation { what, why, remedy } = cause.explain();
        let quoted = |text: &str| serde_json::to_string(text).unwrap();
        let (what, why, remedy) = (quoted(&what), quoted(&why), quoted(&remedy));
        let code = quoted(cause.code());
        writeln!(text, "  {{ code: {code}, what: {what}, why: {why}, remedy: {remedy} }},").unwrap();
    }
    text += "];\n";
    keep("causes.ts", &text);
}

/// A command as its source says it.
struct Command {
    docs: Vec<String>,
    name: String,
    /// Name and Rust type of each argument that the front end gives.
    arguments: Vec<(String, String)>,
    answer: String,
}

fn commands() -> Vec<Command> {
    let source = include_str!("../command.rs");
    let mut docs = Vec::new();
    let mut found = Vec::new();
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        if let Some(doc) = line.strip_prefix("///") {
            docs.push(doc.trim().to_owned());
        } else if line == "#[tauri::command]" {
            let head: String = lines.by_ref().take_while_inclusive(|line| !line.ends_with('{'));
            found.push(command(std::mem::take(&mut docs), &head));
        } else {
            docs.clear();
        }
    }
    found
}

trait TakeInclusive {
    fn take_while_inclusive(self, goes_on: impl Fn(&str) -> bool) -> String;
}

impl<'a, I: Iterator<Item = &'a str>> TakeInclusive for I {
    fn take_while_inclusive(self, goes_on: impl Fn(&str) -> bool) -> String {
        let mut text = String::new();
        for line in self {
            text += line.trim();
            if !goes_on(line) {
                break;
            }
            text.push(' ');
        }
        text
    }
}

fn command(docs: Vec<String>, head: &str) -> Command {
    let (name, rest) = head.strip_prefix("pub(crate) async fn ").unwrap().split_once('(').unwrap();
    let (arguments, answer) = rest.split_once(") -> Result<").unwrap();
    let arguments = arguments.split(", ").filter_map(|argument| argument.trim().trim_end_matches(',').split_once(": "));
    let arguments = arguments.filter(|(_, kind)| *kind != "Handle<'_>");
    Command {
        docs,
        name: name.to_owned(),
        arguments: arguments.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect(),
        answer: answer.strip_suffix(", Problem> {").unwrap().to_owned(),
    }
}

/// The TypeScript of a type that a command is spelled with.
fn spelled(kind: &str, known: &BTreeMap<String, String>) -> String {
    let inner = |prefix: &str| kind.strip_prefix(prefix).and_then(|rest| rest.strip_suffix('>'));
    if let Some(inner) = inner("Option<") {
        return format!("{} | null", spelled(inner, known));
    }
    if let Some(inner) = inner("Vec<") {
        return format!("Array<{}>", spelled(inner, known));
    }
    match kind {
        "()" => "null".to_owned(),
        "String" => "string".to_owned(),
        "bool" => "boolean".to_owned(),
        "u16" | "u32" => "number".to_owned(),
        "Channel<Vec<Change>>" => "Channel<Array<Change>>".to_owned(),
        name if known.contains_key(name) => name.to_owned(),
        other => panic!("{other} is not exported"),
    }
}

#[test]
fn the_commands_of_the_front_end_are_those_of_the_app() {
    let known = declarations();
    let commands = commands();
    assert!(commands.len() > 20, "only {} commands were found", commands.len());
    let mut body = String::from(
        "/** Every command: its arguments and its answer. A refusal is a `Problem`. */\nexport interface Commands {\n",
    );
    for command in &commands {
        body.push_str("  /**\n");
        for line in &command.docs {
            writeln!(body, "   *{}{line}", if line.is_empty() { "" } else { " " }).unwrap();
        }
        body.push_str("   */\n");
        let arguments: Vec<String> =
            command.arguments.iter().map(|(name, kind)| format!("{name}: {}", spelled(kind, &known))).collect();
        let arguments = if arguments.is_empty() {
            "Record<string, never>".to_owned()
        } else {
            format!("{{ {} }}", arguments.join(", "))
        };
        let answer = spelled(&command.answer, &known);
        writeln!(body, "  {}: {{ arguments: {arguments}; answer: {answer} }};", command.name).unwrap();
    }
    body.push_str("}\n");
    let used: Vec<&str> = known
        .keys()
        .map(String::as_str)
        .filter(|name| body.split(|c: char| !c.is_alphanumeric()).any(|word| word == *name))
        .collect();
    let imports = format!(
        "import type {{ Channel }} from \"@tauri-apps/api/core\";\nimport type {{ {} }} from \"./types\";\n",
        used.join(", ")
    );
    keep("commands.ts", &format!("{NOTE}\n{imports}\n{body}"));
}

#[test]
fn every_command_is_registered() {
    let registered = include_str!("../window.rs");
    for command in commands() {
        assert!(registered.contains(&format!("command::{},", command.name)), "{} is not registered", command.name);
    }
}
