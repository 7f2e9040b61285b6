//! A polkit for tests: on a bus of the namespace's own, it answers as it is told and keeps what it was asked.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use tokio_util::task::AbortOnDropHandle;
use zbus::{Connection, Message, MessageStream, message};

use crate::{namespace::Namespace, process::Process, resolver};

/// What polkit says to every question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    Yes,
    No,
    /// It is there and does not answer.
    Nothing,
}

/// One question for an authorization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub subject: String,
    pub pid: u32,
    /// In clock ticks since boot.
    pub start_time: u64,
    pub uid: i32,
    pub action: String,
    /// 1: polkit may ask a person.
    pub flags: u32,
}

/// See the module.
pub struct Polkit {
    bus: Process,
    says: Arc<Mutex<Says>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    _task: AbortOnDropHandle<()>,
}

impl Polkit {
    /// The error of the inner result says why it cannot be had here.
    pub async fn start(namespace: &Namespace, says: Says) -> anyhow::Result<Result<Self, String>> {
        let bus = match resolver::start_bus(namespace).await? {
            Ok(bus) => bus,
            Err(reason) => return Ok(Err(reason)),
        };
        let address = format!("unix:path={}", namespace.path(resolver::BUS).display());
        let connection = zbus::connection::Builder::address(address.as_str()).build().await.context("the bus")?;
        connection.request_name("org.freedesktop.PolicyKit1").await?;
        let (says, asked) = (Arc::new(Mutex::new(says)), Arc::default());
        let task = tokio::spawn(serve(connection, Arc::clone(&says), Arc::clone(&asked)));
        Ok(Ok(Self { bus, says, asked, _task: AbortOnDropHandle::new(task) }))
    }

    pub fn say(&self, says: Says) {
        *self.says.lock().unwrap_or_else(PoisonError::into_inner) = says;
    }

    /// What it was asked since this was called last.
    #[must_use]
    pub fn take_asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends the bus, and polkit with it.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.bus.kill().await
    }
}

async fn serve(connection: Connection, says: Arc<Mutex<Says>>, asked: Arc<Mutex<Vec<Asked>>>) {
    let mut messages = MessageStream::from(&connection);
    while let Some(Ok(message)) = messages.next().await {
        let header = message.header();
        let call = message.message_type() == message::Type::MethodCall;
        if !call || header.member().is_none_or(|member| member.as_str() != "CheckAuthorization") {
            continue;
        }
        let Some(question) = read(&message) else { continue };
        asked.lock().unwrap_or_else(PoisonError::into_inner).push(question);
        let says = *says.lock().unwrap_or_else(PoisonError::into_inner);
        let no_details: HashMap<&str, &str> = HashMap::new();
        if says != Says::Nothing {
            let _ = connection.reply(&header, &(says == Says::Yes, false, no_details)).await;
        }
    }
}

fn read(message: &Message) -> Option<Asked> {
    type Question = ((String, HashMap<String, zbus::OwnedVariant>), String, HashMap<String, String>, u32, String);
    let ((subject, details), action, _, flags, _): Question = message.body().deserialize().ok()?;
    let detail = |name: &str| details.get(name);
    Some(Asked {
        subject,
        pid: u32::try_from(detail("pid")?.clone()).ok()?,
        start_time: u64::try_from(detail("start-time")?.clone()).ok()?,
        uid: i32::try_from(detail("uid")?.clone()).ok()?,
        action,
        flags,
    })
}
