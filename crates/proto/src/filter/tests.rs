use proptest::prelude::*;

use super::*;

struct Thing {
    name: &'static str,
    kind: &'static str,
    tags: Tags,
}

impl Subject for Thing {
    fn value(&self, field: &str) -> Value<'_> {
        match field {
            "name" => self.name.into(),
            "kind" => self.kind.into(),
            "tags" => Value::Tags(&self.tags),
            _ => Value::None,
        }
    }
}

fn thing() -> Thing {
    let tags = [("env", "prod"), ("cost centre", "42"), ("deprecated", "")];
    Thing {
        name: "Pay Roll DB",
        kind: "postgres",
        tags: tags.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
    }
}

fn matches(filter: &str) -> bool {
    filter.parse::<Filter>().unwrap().matches(&thing())
}

#[test]
fn every_term_must_match() {
    assert!(matches("name:pay* tags:env=prod kind:postgres"));
    assert!(!matches("name:pay* tags:env=prod kind:tcp"));
    assert!(matches(""));
    assert!(matches("   "));
}

#[test]
fn case_does_not_count_and_patterns_are_anchored() {
    assert!(matches("NAME:PAY*"));
    assert!(matches("name:*roll*"));
    assert!(matches("name:pay*db"));
    assert!(!matches("name:pay"));
    assert!(!matches("name:*pay"));
    assert!(matches("kind:Postgres"));
    assert!(matches("kind:p*t*s"));
    assert!(!matches("kind:postgres*s"));
}

#[test]
fn quotes_hold_spaces_and_a_bare_word_is_the_name() {
    assert!(matches("name:\"pay roll db\""));
    assert!(matches("\"pay roll db\""));
    assert!(matches("pay*"));
    assert!(!matches("roll"));
    assert!(matches("\"pay r\"*"));
    assert!(matches("tags:\"cost centre\"=4*"));
}

#[test]
fn tags_match_by_key_or_by_key_and_value() {
    assert!(matches("tags:env"));
    assert!(matches("tags:env=p*"));
    assert!(matches("tags:*=prod"));
    assert!(!matches("tags:env=dev"));
    assert!(!matches("tags:region"));
    assert!(matches("tags:deprecated="));
    assert!(!matches("tags:env="));
}

#[test]
fn a_backslash_takes_the_next_character_as_it_is() {
    assert!(!matches(r"name:pay\*"));
    let starred = Thing { name: "a*b", kind: "", tags: Tags::new() };
    assert!(r"name:a\*b".parse::<Filter>().unwrap().matches(&starred));
    assert!(!r"name:a\*c".parse::<Filter>().unwrap().matches(&starred));
}

#[test]
fn what_is_no_filter_says_why() {
    for (text, error) in [
        ("name:\"pay", FilterError::OpenQuote),
        ("name:", FilterError::NoValue("name".to_owned())),
        (":x", FilterError::NoField),
        ("x\\", FilterError::LoneBackslash),
    ] {
        assert_eq!(text.parse::<Filter>(), Err(error), "{text}");
    }
    assert_eq!("x".repeat(MAX_LENGTH + 1).parse::<Filter>(), Err(FilterError::TooLong));
    // Each colon is written with quotes around it.
    let grows = |parts| format!("x:{}", ":*".repeat(parts)).parse::<Filter>();
    let longest = grows(MAX_LENGTH / 4 - 1).unwrap();
    assert_eq!(longest.to_string().parse(), Ok(longest));
    assert_eq!(grows(MAX_LENGTH / 4), Err(FilterError::TooLong), "what is kept could not be read again");
    assert_eq!("x ".repeat(MAX_TERMS + 1).parse::<Filter>(), Err(FilterError::TooManyTerms));
    let unknown = Filter::parse("colour:red", &["name", "kind"]).unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "\"colour\" is not a field here; fields are name, kind (quote a text that holds a colon)"
    );
}

/// What the grammar means, written as naively as possible: a regular-expression-like recursion over characters.
fn glob(pattern: &[Option<char>], text: &[char]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((None, rest)), _) => glob(rest, text) || (!text.is_empty() && glob(pattern, &text[1..])),
        (Some((Some(p), rest)), Some((t, others))) => p == t && glob(rest, others),
        _ => false,
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic_and_what_it_reads_prints_and_reads_back(text in ".{0,80}") {
        if let Ok(filter) = text.parse::<Filter>() {
            let printed = filter.to_string();
            prop_assert_eq!(printed.parse::<Filter>(), Ok(filter), "{}", printed);
        }
    }

    #[test]
    fn signs_in_any_order_print_and_read_back(text in r#"[ab:=*"\\ ]{0,24}"#) {
        if let Ok(filter) = text.parse::<Filter>() {
            let printed = filter.to_string();
            prop_assert_eq!(printed.parse::<Filter>(), Ok(filter), "{}", printed);
        }
    }

    #[test]
    fn wildcards_match_as_the_naive_reading_does(pattern in "[ab*]{1,8}", text in "[ab]{0,10}") {
        let naive: Vec<_> = pattern.chars().map(|c| (c != '*').then_some(c)).collect();
        let expected = glob(&naive, &text.chars().collect::<Vec<_>>());
        let filter: Filter = pattern.parse().unwrap();
        let term = &filter.terms[0];
        let Term::Text { pattern, .. } = term else { unreachable!() };
        prop_assert_eq!(pattern.matches(&text), expected);
    }
}

#[test]
fn a_filter_needs_a_tag_only_where_it_names_one_without_wildcards() {
    let needed = |text: &str| text.parse::<Filter>().unwrap().needed_tag();
    let prod = Some(TagKey::of("Env", "PROD"));
    for text in ["tags:env=prod", "kind:tcp TAGS:ENV=Prod name:a*", r#"tags:"env"="prod""#] {
        assert_eq!(needed(text), prod, "{text}");
    }
    for text in ["", "env", "tags:env", "tags:env=pr*", "tags:e*=prod", "name:prod"] {
        assert_eq!(needed(text), None, "{text}");
    }
    assert_eq!(needed("tags:env="), Some(TagKey::of("env", "")));
    assert_ne!(TagKey::of("en", "vprod"), TagKey::of("env", "prod"));
}
