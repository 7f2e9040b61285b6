use std::os::unix::fs::symlink;

use super::*;

fn store() -> (tempfile::TempDir, Store) {
    let home = tempfile::tempdir().unwrap();
    let paths = Paths::under(home.path()).unwrap();
    for folder in [&paths.state, &paths.config] {
        crate::instance::make_private_folder(folder).unwrap();
    }
    (home, Store::new(&paths))
}

fn config(control: &str) -> Config {
    Config { control: control.to_owned(), ca: None }
}

#[test]
fn what_was_saved_is_loaded_again_and_can_be_forgotten() {
    let (_home, store) = store();
    assert_eq!(store.load::<Config>().unwrap(), None);
    store.save(&config("https://a")).unwrap();
    store.save(&config("https://b")).unwrap();
    assert_eq!(store.load::<Config>().unwrap(), Some(config("https://b")));
    store.remove::<Config>().unwrap();
    store.remove::<Config>().unwrap();
    assert_eq!(store.load::<Config>().unwrap(), None);
}

#[test]
fn files_are_readable_by_their_owner_only() {
    let (_home, store) = store();
    store.save(&config("https://a")).unwrap();
    let path = store.path::<Config>();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    store.load::<Config>().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn bad_content_is_set_aside_once_and_then_counts_as_absent() {
    for content in [&b""[..], b"{", b"null", b"\xff\xfe", b"{\"control\":1}", b"[]"] {
        let (_home, store) = store();
        let path = store.path::<Config>();
        fs::write(&path, content).unwrap();
        let aside = store.load::<Config>().unwrap_err();
        assert_eq!(fs::read(&aside.aside).unwrap(), content);
        assert_eq!(store.load::<Config>().unwrap(), None);
    }
}

#[test]
fn a_link_in_place_of_a_file_is_not_followed() {
    let (home, store) = store();
    let victim = home.path().join("victim");
    fs::write(&victim, b"{\"control\":\"https://evil\"}").unwrap();
    symlink(&victim, store.path::<Config>()).unwrap();
    assert!(store.load::<Config>().is_err());
    symlink(&victim, store.path::<Config>()).unwrap();
    store.save(&config("https://a")).unwrap();
    assert_eq!(fs::read(&victim).unwrap(), b"{\"control\":\"https://evil\"}");
}

#[test]
fn a_half_written_file_of_a_crash_changes_nothing() {
    let (_home, store) = store();
    store.save(&config("https://a")).unwrap();
    fs::write(with_suffix(&store.path::<Config>(), ".new"), b"{\"contr").unwrap();
    assert_eq!(store.load::<Config>().unwrap(), Some(config("https://a")));
    store.save(&config("https://b")).unwrap();
    assert_eq!(store.load::<Config>().unwrap(), Some(config("https://b")));
}

#[test]
fn forgetting_a_value_forgets_what_was_set_aside_too() {
    let (_home, store) = store();
    fs::write(store.path::<DeviceKey>(), b"SECRET but not JSON").unwrap();
    let aside = store.load::<DeviceKey>().err().unwrap().aside;
    store.remove::<DeviceKey>().unwrap();
    assert!(!aside.exists());
}
