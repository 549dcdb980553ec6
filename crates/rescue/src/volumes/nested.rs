//! Arrays whose members are volumes of other arrays.

use std::path::PathBuf;
use std::sync::Arc;

use device::BlockDevice;
use formats::md::Superblock;

use crate::plan::{by_array, candidate};
use crate::scan::{freshest, superblocks_of};
use crate::{Candidate, Image, Slot, raidframe};

/// Volumes that say that they are members of an array.
#[derive(Debug, Default)]
pub(super) struct Members {
    images: Vec<Image>,
    /// Number of the image, and what it says.
    superblocks: Vec<(usize, Superblock)>,
    /// Numbers of the images that have a component label of RAIDframe.
    labelled: Vec<usize>,
}

/// An array of volumes.
pub(super) struct Nested {
    pub(super) id: Vec<u8>,
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
        self.superblocks.len() + self.labelled.len()
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

    /// Adds a volume that has a component label.
    pub(super) fn look_for_label(&mut self, name: &str, device: &Arc<dyn BlockDevice>) {
        self.labelled.push(self.images.len());
        self.images.push(Image::of_device(PathBuf::from(name), Arc::clone(device)));
    }

    /// The arrays that they make.
    pub(super) fn arrays(&self) -> Vec<Nested> {
        let images: Vec<&Image> = self.images.iter().collect();
        let members: Vec<&(usize, Superblock)> = self.superblocks.iter().collect();
        let groups = by_array(&members);
        let of_md = groups.iter().filter_map(|group| {
            let newest = freshest(group)?;
            let plan = candidate(&images, group, newest);
            Some(array(&images, plan, newest.array_uuid.to_vec(), group.len()))
        });
        let labelled: Vec<(usize, &Image)> =
            self.labelled.iter().map(|number| (*number, images[*number])).collect();
        let sets = raidframe::sets_among(&labelled);
        let of_raidframe = sets.iter().filter_map(|set| {
            let plan = set.candidates(&images).into_iter().next()?;
            Some(array(&images, plan, set.id(), set.count()))
        });
        of_md.chain(of_raidframe).collect()
    }
}

/// What a candidate makes of them.
fn array(images: &[&Image], plan: Candidate, id: Vec<u8>, found: usize) -> Nested {
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
    Nested { id, found, name: plan.array, problems: gap.into_iter().chain(plan.reasons).collect(), device }
}
