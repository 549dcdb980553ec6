/* The peer "uzfs": OpenZFS's engine in this process, by way of the libzpool that Debian packages for ztest.
 *
 *   uzfs FOLDER raidz2|mirror DEVICES DEVICE_BYTES DATA_BYTES
 *
 * Makes a pool of files in FOLDER and leads it through the rows of the benchmark. Each is a line on standard output:
 * name, bytes, seconds by the wall clock, seconds of processor time. */
#include <sys/zfs_context.h>
#include <sys/arc.h>
#include <sys/dmu.h>
#include <sys/dmu_objset.h>
#include <sys/dmu_tx.h>
#include <sys/dsl_prop.h>
#include <sys/spa.h>
#include <sys/spa_impl.h>
#include <sys/txg.h>
#include <sys/vdev_impl.h>
#include <libnvpair.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define CALL_BYTES ((uint64_t)1 << 20)
#define DEVICES_MAX 64

static const char *folder;
static int files;
static spa_t *spa;
static objset_t *objects;
static uint64_t object;
static char *buffer;
static uint64_t data_bytes;
static double wall_begin, cpu_begin;

static double wall(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec * 1e-9;
}

static double cpu(void)
{
	struct rusage used;
	getrusage(RUSAGE_SELF, &used);
	return used.ru_utime.tv_sec + used.ru_stime.tv_sec
	    + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
}

static void begin(void)
{
	wall_begin = wall();
	cpu_begin = cpu();
}

static void end(const char *row)
{
	printf("%s %llu %.6f %.6f\n", row, (unsigned long long)data_bytes, wall() - wall_begin, cpu() - cpu_begin);
	fflush(stdout);
}

static nvlist_t *new_file(uint64_t bytes)
{
	char path[1024];
	snprintf(path, sizeof path, "%s/v%d", folder, files++);
	int file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
	VERIFY0(ftruncate(file, bytes));
	close(file);
	nvlist_t *leaf = fnvlist_alloc();
	fnvlist_add_string(leaf, ZPOOL_CONFIG_TYPE, VDEV_TYPE_FILE);
	fnvlist_add_string(leaf, ZPOOL_CONFIG_PATH, path);
	fnvlist_add_uint64(leaf, ZPOOL_CONFIG_ASHIFT, 12);
	return leaf;
}

static nvlist_t *parent(const char *type, nvlist_t **children, int count)
{
	nvlist_t *node = fnvlist_alloc();
	fnvlist_add_string(node, ZPOOL_CONFIG_TYPE, type);
	fnvlist_add_nvlist_array(node, ZPOOL_CONFIG_CHILDREN, (const nvlist_t **)children, count);
	return node;
}

/* Nothing of the data is in memory afterwards. */
static void forget(void)
{
	dmu_objset_evict_dbufs(objects);
	txg_wait_synced(spa_get_dsl(spa), 0);
	arc_flush(spa, B_FALSE);
}

static void read_all(const char *row)
{
	forget();
	begin();
	for (uint64_t at = 0; at < data_bytes; at += CALL_BYTES)
		VERIFY0(dmu_read(objects, object, at, CALL_BYTES, buffer, 0));
	end(row);
}

static void write_all(void)
{
	begin();
	for (uint64_t at = 0; at < data_bytes; at += CALL_BYTES) {
		dmu_tx_t *tx = dmu_tx_create(objects);
		dmu_tx_hold_write(tx, object, at, CALL_BYTES);
		VERIFY0(dmu_tx_assign(tx, DMU_TX_WAIT));
		/* Nothing is deduplicated or compressed, so that it may repeat. */
		dmu_write(objects, object, at, CALL_BYTES, buffer + at / CALL_BYTES % 16 * CALL_BYTES, tx);
		dmu_tx_commit(tx);
	}
	txg_wait_synced(spa_get_dsl(spa), 0);
	end("write");
}

int main(int count, char **arguments)
{
	if (count != 6)
		return 2;
	folder = arguments[1];
	boolean_t mirrors = strcmp(arguments[2], "mirror") == 0;
	int devices = MIN(atoi(arguments[3]), DEVICES_MAX);
	uint64_t device_bytes = strtoull(arguments[4], NULL, 10);
	data_bytes = strtoull(arguments[5], NULL, 10);
	static char cache[1024];
	snprintf(cache, sizeof cache, "%s/zpool.cache", folder);
	spa_config_path = cache;
	kernel_init(SPA_MODE_READ | SPA_MODE_WRITE);

	nvlist_t *leaves[DEVICES_MAX], *groups[DEVICES_MAX];
	int group_count = 0;
	for (int i = 0; i < devices; i++)
		leaves[i] = new_file(device_bytes);
	if (mirrors) {
		for (int i = 0; i + 1 < devices; i += 2)
			groups[group_count++] = parent(VDEV_TYPE_MIRROR, leaves + i, 2);
	} else {
		groups[group_count] = parent(VDEV_TYPE_RAIDZ, leaves, devices);
		fnvlist_add_uint64(groups[group_count++], ZPOOL_CONFIG_NPARITY, 2);
	}
	nvlist_t *properties = fnvlist_alloc();
	for (int i = 0; i < SPA_FEATURES; i++) {
		char name[128];
		snprintf(name, sizeof name, "feature@%s", spa_feature_table[i].fi_uname);
		fnvlist_add_uint64(properties, name, 0);
	}
	VERIFY0(spa_create("peer", parent(VDEV_TYPE_ROOT, groups, group_count), properties, NULL, NULL));
	VERIFY0(spa_open("peer", &spa, FTAG));
	VERIFY0(dsl_prop_set_int("peer", "compression", ZPROP_SRC_LOCAL, ZIO_COMPRESS_OFF));
	VERIFY0(dmu_objset_create("peer/data", DMU_OST_OTHER, 0, NULL, NULL, NULL));
	VERIFY0(dmu_objset_own("peer/data", DMU_OST_OTHER, B_FALSE, B_FALSE, FTAG, &objects));

	buffer = umem_alloc(16 * CALL_BYTES, UMEM_NOFAIL);
	uint64_t noise = 88172645463325252ull;
	for (size_t i = 0; i < 16 * CALL_BYTES / 8; i++) {
		noise ^= noise << 13;
		noise ^= noise >> 7;
		noise ^= noise << 17;
		((uint64_t *)buffer)[i] = noise;
	}
	dmu_tx_t *tx = dmu_tx_create(objects);
	dmu_tx_hold_bonus(tx, DMU_NEW_OBJECT);
	VERIFY0(dmu_tx_assign(tx, DMU_TX_WAIT));
	object = dmu_object_alloc(objects, DMU_OT_UINT64_OTHER, 128 << 10, DMU_OT_NONE, 0, tx);
	dmu_tx_commit(tx);

	write_all();
	read_all("read");
	forget();
	boolean_t waited;
	begin();
	VERIFY0(spa_scan(spa, POOL_SCAN_SCRUB));
	VERIFY0(spa_wait("peer", ZPOOL_WAIT_SCRUB, &waited));
	end("scrub");
	uint64_t gone = spa->spa_root_vdev->vdev_child[0]->vdev_child[1]->vdev_guid;
	VERIFY0(vdev_offline(spa, gone, 0));
	nvlist_t *fresh = new_file(device_bytes);
	forget();
	begin();
	VERIFY0(spa_vdev_attach(spa, gone, parent(VDEV_TYPE_ROOT, &fresh, 1), B_TRUE, B_FALSE));
	VERIFY0(spa_wait("peer", ZPOOL_WAIT_RESILVER, &waited));
	end("resilver1");
	/* The files go with their folder: what is left of the pool need not be put away. */
	_exit(0);
}
