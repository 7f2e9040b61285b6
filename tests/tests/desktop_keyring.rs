//! Device key and sign-in in the real GNOME Keyring: kept over restarts, moved without leaving a copy, and what is said
//! and offered while the keyring is locked, missing or mute.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use postern_local_api::message::{KeyPlace, KeyStorage, KeyStorageChoice, SignIn, Status};
use postern_proto::resource::Kind;
use postern_tests::{
    need_program,
    servers::{Folder, folder},
    session_bus::{Keyring, Mute, SessionBus},
    stack::{EMAIL, PASSWORD, Stack},
    target::{Behaviour, Target},
};

/// A stack whose posternd lives in the session of `bus`, and was never told where to keep keys.
async fn start(bus: &SessionBus, target: &Target) -> anyhow::Result<Stack> {
    Stack::builder()
        .resource("echo", Kind::Tcp, target.address())
        .user_environment("DBUS_SESSION_BUS_ADDRESS", bus.address())
        .user_environment("POSTERN_KEY_STORAGE", "keyring")
        .start()
        .await
}

/// The files that hold secrets when files do.
fn files(stack: &Stack) -> usize {
    let state = stack.user().home().join("state");
    let there = |name: &&&str| state.join(name).exists();
    ["device-key.json", "login.json"].iter().filter(there).count()
}

async fn keep(stack: &Stack, storage: KeyPlace) -> anyhow::Result<Status> {
    Ok(stack.user().client().set_key_storage(&KeyStorageChoice { storage }).await?)
}

async fn restart(stack: &mut Stack) -> anyhow::Result<Status> {
    stack.user_mut().kill().await?;
    stack.user_mut().restart().await?;
    stack.user().status().await
}

fn is_signed_in(status: &Status) -> bool {
    matches!(status.sign_in, SignIn::SignedIn { .. })
}

fn says(status: &Status, code: &str) -> bool {
    status.health.iter().any(|item| item.code == code)
}

fn in_keyring() -> KeyStorage {
    KeyStorage::Keystore { name: "GNOME Keyring".to_owned() }
}

async fn begin() -> anyhow::Result<(Folder, SessionBus, Target)> {
    let folder = folder()?;
    let bus = SessionBus::start(folder.path()).await?;
    Ok((folder, bus, Target::start(Behaviour::Echo).await?))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keyring_holds_the_sign_in_over_restarts_and_moving_leaves_no_copy() -> anyhow::Result<()> {
    need_program!("dbus-daemon");
    need_program!(Keyring::PROGRAM);
    let (folder, bus, target) = begin().await?;
    let keyring = Keyring::start(&bus, folder.path()).await?;
    let mut stack = start(&bus, &target).await?;
    let status = stack.user().status().await?;
    ensure!(status.key_storage == in_keyring(), "{:?}", status.key_storage);
    ensure!((files(&stack), keyring.items().await?) == (0, 1), "secrets are in files too");
    ensure!(!holds(stack.user().home(), "PRIVATE KEY"), "the key is in a file");

    let status = restart(&mut stack).await?;
    ensure!(is_signed_in(&status) && status.key_storage == in_keyring(), "{status:?}");
    stack.user().knows("echo").await?;
    stack.user().connect("echo").await?;

    let status = keep(&stack, KeyPlace::File).await?;
    ensure!(matches!(status.key_storage, KeyStorage::File { .. }));
    ensure!((files(&stack), keyring.items().await?) == (2, 0), "a copy stayed in the keyring");
    ensure!(is_signed_in(&restart(&mut stack).await?), "the files do not bring the sign-in back");

    let status = keep(&stack, KeyPlace::Keyring).await?;
    ensure!(status.key_storage == in_keyring());
    ensure!((files(&stack), keyring.items().await?) == (0, 1), "a copy stayed in files");
    ensure!(is_signed_in(&restart(&mut stack).await?), "the keyring does not bring the sign-in back");

    // A sign-out that comes while the keyring is locked is carried out when it opens, and holds until then.
    keyring.lock().await?;
    stack.user().postern(&["logout"]).await?;
    ensure!(keyring.items().await? == 1);
    keyring.unlock().await?;
    let status = restart(&mut stack).await?;
    ensure!(matches!(status.sign_in, SignIn::SignedOut), "the sign-in came back from the keyring");
    ensure!(keyring.items().await? == 0, "the sign-out left the key in the keyring");
    stack.user().login(EMAIL, PASSWORD).await?;
    ensure!(keyring.items().await? == 1);
    stack.user().postern(&["logout"]).await?;
    ensure!((files(&stack), keyring.items().await?) == (0, 0), "a sign-out leaves something behind");
    stack.stop().await?;
    keyring.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_keyring_is_said_and_the_sign_in_comes_back_when_it_opens() -> anyhow::Result<()> {
    need_program!("dbus-daemon");
    need_program!(Keyring::PROGRAM);
    let (folder, bus, target) = begin().await?;
    let keyring = Keyring::start(&bus, folder.path()).await?;
    let mut stack = start(&bus, &target).await?;
    keyring.lock().await?;
    let status = restart(&mut stack).await?;
    let unreadable = |missing| KeyStorage::Unreadable {
        name: "GNOME Keyring".to_owned(),
        reason: "It waits for its password.".to_owned(),
        missing,
    };
    ensure!(status.key_storage == unreadable(false), "{:?}", status.key_storage);
    ensure!(says(&status, "keyring_locked") && !is_signed_in(&status), "{status:?}");
    let shown = stack.user().postern(&["status"]).await?;
    ensure!(shown.contains("GNOME Keyring") && shown.contains("not readable"), "{shown}");

    keyring.unlock().await?;
    let status = stack.user().status_when(is_signed_in).await?;
    ensure!(status.key_storage == in_keyring() && !says(&status, "keyring_locked"), "{status:?}");
    stack.user().knows("echo").await?;
    stack.user().connect("echo").await?;

    // Nobody is there to type its password: asking for it ends in words, and the service goes on.
    keyring.lock().await?;
    restart(&mut stack).await?;
    let refused = keep(&stack, KeyPlace::Keyring).await.err().context("a locked keyring was opened")?;
    ensure!(refused.to_string().contains("The keyring is locked"), "{refused}");
    // Memory is chosen: what is in the keyring goes as soon as it can.
    let status = keep(&stack, KeyPlace::Memory).await?;
    ensure!(status.key_storage == KeyStorage::Memory && !says(&status, "keyring_locked"), "{status:?}");
    stack.user().login(EMAIL, PASSWORD).await?;
    ensure!((files(&stack), keyring.items().await?) == (0, 1));
    keyring.unlock().await?;
    for _ in 0..1000 {
        if keyring.items().await? == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    }
    ensure!(keyring.items().await? == 0, "the old item stays in the keyring");
    ensure!(is_signed_in(&stack.user().status().await?));
    stack.stop().await?;
    keyring.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_keyring_nothing_is_written_until_somebody_chooses() -> anyhow::Result<()> {
    need_program!("dbus-daemon");
    let (_folder, bus, target) = begin().await?;
    let mut stack = start(&bus, &target).await?;
    let status = stack.user().status().await?;
    ensure!(matches!(status.key_storage, KeyStorage::Unreadable { missing: true, .. }), "{:?}", status.key_storage);
    ensure!(is_signed_in(&status) && says(&status, "keyring_missing"), "{status:?}");
    ensure!(files(&stack) == 0 && !holds(stack.user().home(), "PRIVATE KEY"), "keys were written without a word");
    stack.user().knows("echo").await?;
    stack.user().connect("echo").await?;
    let refused = stack.user().postern(&["key-storage", "keyring"]).await.err().context("there is no keyring")?;
    ensure!(format!("{refused:#}").contains("there is no keyring"), "{refused:#}");

    stack.user().postern(&["key-storage", "file"]).await?;
    let status = restart(&mut stack).await?;
    ensure!(is_signed_in(&status) && !says(&status, "keyring_missing") && files(&stack) == 2, "{status:?}");
    stack.stop().await?;

    // One that takes questions and never answers holds nobody up.
    let (_folder, bus, target) = begin().await?;
    Mute::serve(&bus).await?;
    let stack = start(&bus, &target).await?;
    let status = stack.user().status().await?;
    ensure!(is_signed_in(&status) && says(&status, "keyring_locked"), "{status:?}");
    stack.user().knows("echo").await?;
    stack.user().connect("echo").await?;
    ensure!(files(&stack) == 0);
    stack.stop().await
}

/// Whether a file under the folder holds the text.
fn holds(folder: &std::path::Path, text: &str) -> bool {
    let entries: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    entries.iter().any(|path| match path.is_dir() {
        true => holds(path, text),
        false => String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).contains(text),
    })
}
