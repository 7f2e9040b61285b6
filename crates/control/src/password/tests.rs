use super::*;
use crate::lockout::{FAILURES, LOCK};

fn password(text: &str) -> Password {
    Password::from(text.to_owned())
}

#[test]
fn a_new_password_has_twelve_characters_and_is_not_the_address() {
    let check = |text: &str| password(text).check_rules("Long.Local.Part@Example.org");
    assert_eq!(check("eleven char"), Err(WeakPassword::TooShort));
    assert_eq!(check("ääääääääääää"), Ok(()));
    assert_eq!(check("long.local.part@example.ORG"), Err(WeakPassword::IsEmail));
    assert_eq!(check("Long.local.part "), Err(WeakPassword::IsEmail));
    assert_eq!(check(&"x".repeat(1025)), Err(WeakPassword::TooLong));
    assert_eq!(check("correct horse battery"), Ok(()));
}

#[test]
fn a_password_does_not_show_itself_in_debug_output() {
    assert!(!format!("{:?}", password("correct horse")).contains("horse"));
}

#[tokio::test]
async fn a_right_password_is_right_and_anything_else_is_wrong() {
    let passwords = Passwords::new().unwrap();
    let stored = passwords.hash(password("correct horse battery")).await.unwrap();
    assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
    let verify = |stored: Option<&str>, text: &str| {
        let (stored, text) = (stored.map(str::to_owned), password(text));
        let passwords = &passwords;
        async move { passwords.verify("a@example.org", stored, text).await.unwrap() }
    };
    assert_eq!(verify(Some(&stored), "correct horse battery").await, Verdict::Right);
    assert_eq!(verify(Some(&stored), "correct horse batterY").await, Verdict::Wrong);
    assert_eq!(verify(None, "correct horse battery").await, Verdict::Wrong);
    assert_eq!(verify(Some("no hash"), "correct horse battery").await, Verdict::Wrong);
}

#[tokio::test]
async fn a_locked_name_stays_locked_for_the_right_password_and_for_no_account_alike() {
    let passwords = Passwords::new().unwrap();
    let stored = passwords.hash(password("correct horse battery")).await.unwrap();
    for (name, stored) in [("a@example.org", Some(stored)), ("nobody@example.org", None)] {
        for _ in 0..FAILURES {
            let verdict = passwords.verify(name, stored.clone(), password("wrong")).await.unwrap();
            assert_eq!(verdict, Verdict::Wrong);
        }
        let verdict = passwords.verify(name, stored.clone(), password("correct horse battery")).await.unwrap();
        assert!(matches!(verdict, Verdict::Locked { left } if left <= LOCK));
        passwords.forgive(name).await.unwrap();
        assert_ne!(passwords.verify(name, stored, password("wrong")).await.unwrap(), Verdict::Locked { left: LOCK });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_parallel_guesses_get_five_looks() {
    let passwords = Arc::new(Passwords::new().unwrap());
    let tries: Vec<_> = (0..100)
        .map(|_| {
            let passwords = Arc::clone(&passwords);
            tokio::spawn(async move { passwords.verify("a", None, password("guess")).await.unwrap() })
        })
        .collect();
    let mut looked = 0;
    for verdict in tries {
        looked += u32::from(verdict.await.unwrap() == Verdict::Wrong);
    }
    assert_eq!(looked, FAILURES);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_right_sign_ins_of_one_account_at_once_all_succeed() {
    let passwords = Arc::new(Passwords::new().unwrap());
    let stored = passwords.hash(password("correct horse battery")).await.unwrap();
    let tries: Vec<_> = (0..20)
        .map(|_| {
            let (passwords, stored) = (Arc::clone(&passwords), Some(stored.clone()));
            tokio::spawn(async move { passwords.verify("a", stored, password("correct horse battery")).await.unwrap() })
        })
        .collect();
    for verdict in tries {
        assert_eq!(verdict.await.unwrap(), Verdict::Right);
    }
}
