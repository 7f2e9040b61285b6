use std::sync::{Mutex, mpsc};

use super::*;

/// Answers when it is let, and remembers what it holds.
#[derive(Debug, Clone, Default)]
struct Slow {
    held: Arc<Mutex<Option<Secrets>>>,
    gate: Arc<Mutex<Option<mpsc::Receiver<()>>>>,
}

impl SecretStore for Slow {
    fn load(&self, _warnings: &mut Vec<String>) -> Result<Option<Secrets>, Failure> {
        Ok(self.held.lock().unwrap().clone())
    }

    fn save(&self, secrets: &Secrets) -> Result<(), Failure> {
        let gate = self.gate.lock().unwrap().take();
        if let Some(gate) = gate {
            gate.recv().unwrap();
        }
        *self.held.lock().unwrap() = Some(secrets.clone());
        Ok(())
    }

    fn remove(&self) -> Result<(), Failure> {
        *self.held.lock().unwrap() = None;
        Ok(())
    }

    fn silent(&self, after: Duration) -> Failure {
        Failure::Keyring(Fault::Locked { name: "Slow".to_owned(), reason: format!("{after:?}") })
    }
}

fn secrets() -> Secrets {
    let record = serde_json::json!({
        "control": "https://control.example", "login": postern_proto::id::LoginId::from_ulid(1.into()), "token": "T",
        "signed_in_at": 1, "expires_at": 2, "org_name": "o", "ca": "", "org": postern_proto::id::OrgId::from_ulid(1.into()),
        "device": postern_proto::id::DeviceId::from_ulid(1.into()),
        "account": { "id": postern_proto::id::AccountId::from_ulid(1.into()), "email": "a@b.example", "name": "a",
            "service": false, "admin": false },
    });
    Secrets { key: DeviceKey { pem: "K".to_owned() }, record: serde_json::from_value(record).unwrap() }
}

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_store_that_waits_for_a_person_holds_nobody_up_and_keeps_nothing_in_the_end() {
    let store = Slow::default();
    let (open, gate) = mpsc::channel();
    *store.gate.lock().unwrap() = Some(gate);
    let vault = Vault::new(store.clone());
    let result = vault.save(secrets(), Duration::from_millis(20)).await;
    assert!(matches!(result, Err(Failure::Keyring(Fault::Locked { .. }))));
    // Nor is it asked a second time meanwhile.
    assert!(vault.load(PATIENCE).await.is_err());
    open.send(()).unwrap();
    let free = async {
        while vault.load(PATIENCE).await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, free).await.unwrap();
    assert!(vault.load(PATIENCE).await.unwrap().0.is_none(), "what came too late is still there");
    vault.save(secrets(), PATIENCE).await.unwrap();
    assert_eq!(vault.load(PATIENCE).await.unwrap().0.unwrap().record.token, "T");
}

#[tokio::test]
async fn files_keep_secrets_and_a_record_without_its_key_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let paths = postern_local_api::paths::Paths::find(Some(folder.path())).unwrap();
    std::fs::create_dir_all(&paths.state).unwrap();
    let files = InFiles(Store::new(&paths));
    let vault = Vault::new(files.clone());
    assert!(!files.hold_something());
    vault.save(secrets(), PATIENCE).await.unwrap();
    assert!(files.hold_something());
    assert_eq!(vault.load(PATIENCE).await.unwrap().0.unwrap().key.pem, "K");
    std::fs::remove_file(files.0.path::<DeviceKey>()).unwrap();
    let (found, warnings) = vault.load(PATIENCE).await.unwrap();
    assert!(found.is_none() && warnings.len() == 1, "{warnings:?}");
    vault.remove(PATIENCE).await.unwrap();
    assert!(!files.hold_something());
}
