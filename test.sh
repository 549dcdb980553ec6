#!/usr/bin/env bash
# Installs what the tests need (as root, on Debian or Ubuntu, only what is missing) and passes them.
set -eu
cd "$(dirname "$0")"

# command  package
needed='qemu-img qemu-utils
qemu-io qemu-utils
nbdkit nbdkit
nbdinfo libnbd-bin
nbdcopy libnbd-bin
nbdfuse libnbd-bin
fio fio
mkfs.xfs xfsprogs
mkfs.btrfs btrfs-progs
mkfs.ext4 e2fsprogs
mkfs.vfat dosfstools
mcopy mtools
mkntfs ntfs-3g
mkfs.exfat exfatprogs
fusermount3 fuse3
losetup mount
blkid util-linux
cc gcc'

missing=$(while read -r command package; do
    PATH="$PATH:/sbin:/usr/sbin" command -v "$command" >/dev/null || echo "$package"
done <<<"$needed" | sort -u | tr '\n' ' ')
if [ -n "${missing// /}" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -q
        # shellcheck disable=SC2086
        apt-get install -y -q --no-install-recommends $missing
    else
        echo "Not installed: $missing- tests that need these say so and are passed over." >&2
        echo "As root this script installs them; or: apt-get install $missing" >&2
    fi
fi
exec cargo run --quiet --package xtask -- test
