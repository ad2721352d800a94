//! The loop as the commands start it: makes what [`crate::run`] needs of what the commands opened, and
//! says how it ended. It decides nothing.

use std::path::PathBuf;

use lockgate_shared::version::Version;

use super::{Loop, LoopError, Ready, Request};
use crate::{
    config::{ProductSettings, SlotsKind},
    facts::Sources,
    lock::Lock,
    log,
    perform::{Kind, OnDisk},
    run::{Agent, Ended, Product, Role, RunError, Setup},
    slots::SlotError,
    world::Machine,
};

/// The loop of this program.
#[derive(Clone, Copy, Debug)]
pub struct Turns;

impl Loop for Turns {
    fn run(&self, mut ready: Ready) -> Result<(), LoopError> {
        ready.transport.heed_signals()?;
        let (mut agent, _lock) = open(ready)?;
        log::info(concat!("version ", env!("CARGO_PKG_VERSION"), " is running"));
        match agent.run()? {
            Ended::Told => log::info("ended as told"),
            // Whoever started it starts it again, and finds the new binary.
            Ended::Replaced(product) => {
                log::info(format_args!("`{product}` was replaced; ending, to be started anew"));
            }
        }
        Ok(())
    }

    fn turn(&self, ready: Ready) -> Result<(), LoopError> {
        let (mut agent, _lock) = open(ready)?;
        agent.hurry();
        agent.turn()?;
        Ok(())
    }
}

fn open(ready: Ready) -> Result<(Agent<Machine>, Lock), LoopError> {
    let Ready { settings, lock, key, enrolled, anchor, transport } = ready;
    for Request::Rollback(product) in Request::waiting(&settings.state)? {
        log::warn(format_args!("the request to roll back `{product}` waits"));
    }
    let slots = settings.products.values().next().map(|product| product.root.clone());
    let mut products = Vec::new();
    for product in settings.products.into_values() {
        products.push(product_of(product)?);
    }
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
        key,
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
    let hands = OnDisk::open(kind, &settings.root, settings.restart, settings.restart_timeout)
        .map_err(failed)?;
    Ok(Product {
        product: settings.name,
        channel: settings.channel,
        pin: settings.pin,
        role,
        hands: Box::new(hands),
    })
}

/// Where the program that `slots = "agent"` replaces is installed: as configured, or this one.
pub(super) fn installed(settings: &ProductSettings) -> Result<PathBuf, SlotError> {
    let installed = settings.installed.clone().map_or_else(std::env::current_exe, Ok);
    installed.map_err(|error| SlotError::disk("find", &PathBuf::from("/proc/self/exe"), error))
}

/// The program's name inside a release: the one that it is installed under.
pub(super) fn binary_name(installed: &std::path::Path) -> &str {
    installed.file_name().and_then(|name| name.to_str()).unwrap_or("lockgate-agent")
}
