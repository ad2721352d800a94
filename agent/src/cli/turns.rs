//! The loop as the commands start it: makes what [`crate::run`] needs of what the commands opened, and
//! says how it ended. It decides nothing.

use std::path::PathBuf;

use lockgate_shared::version::Version;

use super::{Loop, LoopError, Ready, Request};
use crate::{
    config::{ProductSettings, Settings, SlotsKind},
    facts::Sources,
    guard::{self, Duty, Guard, GuardError, Over, Post},
    lock::Lock,
    log,
    perform::{Kind, OnDisk},
    run::{Agent, Counted, Ended, Product, Role, RunError, Setup},
    slots::{AgentBinary, SlotError},
    world::Machine,
};

/// The loop of this program.
#[derive(Clone, Copy, Debug)]
pub struct Turns;

impl Loop for Turns {
    fn run(&self, mut ready: Ready) -> Result<(), LoopError> {
        ready.transport.heed_signals()?;
        let mut guard = guard_of(&ready.settings)?;
        if guard::is_watched() {
            guard::end_with_guard();
        } else if let Some(guard) = &mut guard
            && let Duty::Watch(word) = guard.duty()?
        {
            let Ready { lock, mut transport, .. } = ready;
            // The new agent takes it.
            drop(lock);
            match guard.watch(*word, &mut transport)? {
                Over::Succeeded => succeed(guard),
                Over::Told => log::info("ended as told, with the new agent"),
            }
            return Ok(());
        }
        let (mut agent, lock) = open(ready)?;
        log::info(concat!("version ", env!("CARGO_PKG_VERSION"), " is running"));
        match agent.run()? {
            Ended::Told => log::info("ended as told"),
            Ended::Replaced(product) => {
                log::info(format_args!("`{product}` is switched: begun anew"));
                drop((agent, lock));
                match &guard {
                    // Its guard sees what it has switched to.
                    Some(_) if guard::is_watched() => {}
                    Some(guard) => succeed(guard),
                    None => {}
                }
            }
        }
        Ok(())
    }

    fn turn(&self, ready: Ready) -> Result<(), LoopError> {
        if let Some(mut guard) = guard_of(&ready.settings)?
            && let Duty::Watch(word) = guard.duty()?
        {
            return Err(GuardError::Pending(word.version).into());
        }
        let (mut agent, _lock) = open(ready)?;
        agent.hurry();
        agent.turn()?;
        Ok(())
    }
}

/// What guards the agent's own replacement, where the owner has it update itself.
fn guard_of(settings: &Settings) -> Result<Option<Guard>, SlotError> {
    let own = settings.products.values().find(|product| match product.slots {
        SlotsKind::Agent => true,
        SlotsKind::Directory => false,
    });
    let Some(own) = own else { return Ok(None) };
    let installed = installed(own)?;
    let slots = AgentBinary::open(&own.root, &installed, binary_name(&installed))?;
    Ok(Some(Guard::new(Post::of(&settings.state), slots, installed)))
}

fn succeed(guard: &Guard) {
    // Whoever started this one starts what is installed all the same, only later.
    let error = guard.succeed();
    log::error(format_args!("what is installed cannot be run in this process's place: {error}"));
}

fn open(ready: Ready) -> Result<(Agent<Machine>, Lock), LoopError> {
    let Ready { settings, lock, identity, enrolled, anchor, transport } = ready;
    for Request::Rollback(product, _) in Request::waiting(&settings.state)? {
        log::warn(format_args!("the request to roll back `{product}` waits"));
    }
    let slots = settings.products.values().next().map(|product| product.root.clone());
    let mut products = Vec::new();
    for product in settings.products.into_values() {
        products.push(product_of(product)?);
    }
    let counted = identity
        .counter(&settings.state, &settings.tpm)
        .map(|(counter, start)| Counted { counter: Box::new(counter), start: start.value });
    let world = Machine {
        transport,
        sources: Sources::system(),
        overrides: settings.facts,
        slots: slots.unwrap_or_else(|| settings.state.clone()),
    };
    let agent: Version = env!("CARGO_PKG_VERSION").parse()?;
    let setup = Setup {
        state: settings.state,
        anchor,
        key: identity.key,
        counted,
        repository: enrolled.repository,
        tenant: enrolled.tenant,
        agent,
        poll: settings.poll,
        windows: settings.windows,
        preferences: settings.preferences,
        products,
    };
    Ok((Agent::open(world, setup)?, lock))
}

fn product_of(settings: ProductSettings) -> Result<Product, RunError> {
    let name = settings.name.clone();
    let failed = |source| RunError::Slots { product: name.clone(), source };
    let installed = installed(&settings).map_err(failed)?;
    let (kind, role) = match settings.slots {
        SlotsKind::Directory => (Kind::Directory, Role::Other),
        SlotsKind::Agent => {
            let binary = binary_name(&installed);
            (Kind::Agent { installed: &installed, binary }, Role::Agent)
        }
    };
    let performer = OnDisk::open(kind, &settings.root, settings.restart, settings.restart_timeout)
        .map_err(failed)?;
    Ok(Product {
        product: settings.name,
        channel: settings.channel,
        pin: settings.pin,
        role,
        performer: Box::new(performer),
    })
}

/// Where the program that `slots = "agent"` replaces is installed: as configured, or as its guard
/// says to a new agent that runs from its slot, or this one.
pub(super) fn installed(settings: &ProductSettings) -> Result<PathBuf, SlotError> {
    let told = || std::env::var_os(guard::INSTALLED).map(PathBuf::from);
    let installed = settings.installed.clone().or_else(told).map_or_else(std::env::current_exe, Ok);
    installed.map_err(|error| SlotError::disk("find", &PathBuf::from("/proc/self/exe"), error))
}

/// The program's name inside a release: the one that it is installed under.
pub(super) fn binary_name(installed: &std::path::Path) -> &str {
    installed.file_name().and_then(|name| name.to_str()).unwrap_or("lockgate-agent")
}
