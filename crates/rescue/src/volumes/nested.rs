//! Arrays whose members are volumes of other arrays.

use std::path::PathBuf;
use std::sync::Arc;

use device::BlockDevice;
use formats::md::Superblock;

use crate::plan::{by_array, candidate};
use crate::scan::{freshest, superblocks_of};
use crate::{Image, Slot};

/// Volumes that say that they are members of an array.
#[derive(Debug, Default)]
pub(super) struct Members {
    images: Vec<Image>,
    /// Number of the image, and what it says.
    superblocks: Vec<(usize, Superblock)>,
}

/// An array of volumes.
pub(super) struct Nested {
    pub(super) uuid: [u8; 16],
    /// How many of its members were found.
    pub(super) found: usize,
    pub(super) name: String,
    /// What is to be said of it.
    pub(super) problems: Vec<String>,
    /// The array, or why there is none.
    pub(super) device: Result<Arc<dyn BlockDevice>, String>,
}

impl Members {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.superblocks.len()
    }

    /// Adds a volume, if it has a superblock.
    pub(super) fn look(&mut self, name: &str, device: &Arc<dyn BlockDevice>) {
        let Ok(size) = device.size() else { return };
        let (superblocks, _) = superblocks_of(&**device, size);
        if !superblocks.is_empty() {
            self.superblocks
                .extend(superblocks.into_iter().map(|superblock| (self.images.len(), superblock)));
            self.images.push(Image::of_device(PathBuf::from(name), Arc::clone(device)));
        }
    }

    /// The arrays that they make.
    pub(super) fn arrays(&self) -> Vec<Nested> {
        let images: Vec<&Image> = self.images.iter().collect();
        let members: Vec<&(usize, Superblock)> = self.superblocks.iter().collect();
        let groups = by_array(&members);
        groups.iter().filter_map(|group| Some(array(&images, group, freshest(group)?))).collect()
    }
}

/// What a group's newest superblock makes of it.
fn array(images: &[&Image], group: &[&(usize, Superblock)], newest: &Superblock) -> Nested {
    let plan = candidate(images, group, newest);
    let open = |slot: &Slot| {
        images.iter().find(|image| image.path == slot.path).map(|image| Arc::clone(&image.device))
    };
    let devices: Vec<_> = plan.slots.iter().map(|slot| slot.as_ref().and_then(open)).collect();
    let missing = plan.slots.iter().filter(|slot| slot.is_none()).count();
    let gap = (missing > 0).then(|| match missing {
        1 => "1 of its members is missing".to_owned(),
        _ => format!("{missing} of its members are missing"),
    });
    let device = plan
        .check(&devices)
        .and_then(|()| plan.assemble(&devices))
        .map(|array| Arc::new(array) as Arc<dyn BlockDevice>)
        .map_err(|error| error.to_string());
    Nested {
        uuid: newest.array_uuid,
        found: group.len(),
        name: plan.array,
        problems: gap.into_iter().chain(plan.reasons).collect(),
        device,
    }
}
