/* A libnvidia-ml that says what a script file says: as much of the library as Wattgate calls.
 *
 * The script is the file that nvml_stub_script() names, else the environment variable NVML_STUB_SCRIPT. It is read
 * anew by every call, so a test changes the hardware by writing the file. A line is `KEY VALUE`; the key of a GPU's
 * fact is `INDEX.KEY`. Keys: see lookup() and its callers. KEY_error (`0.energy_error 15`) makes the call return that
 * nvmlReturn_t. A `generation` that is no longer that of nvmlInit is a driver that was loaded again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int nvmlReturn_t;
typedef void *nvmlDevice_t;

enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    GPU_IS_LOST = 15,
};

static char path[4096];
static int started;
static long generation;
static long calls;

/* From the library's header: nvmlProcessInfo_t (v2 and v3), nvmlMemory_t, nvmlUtilization_t, nvmlGpmSupport_t. */
typedef struct {
    unsigned pid;
    unsigned long long used_bytes;
    unsigned gpu_instance, compute_instance;
} Process;
typedef struct {
    unsigned long long total, free, used;
} Memory;
typedef struct {
    unsigned gpu, memory;
} Utilization;
typedef struct {
    unsigned version, is_supported;
} GpmSupport;
typedef struct {
    unsigned id;
    nvmlReturn_t result;
    double value;
    char *info[3];
} GpmMetric;
typedef struct {
    unsigned version, count;
    void *first, *second;
    GpmMetric metrics[];
} GpmMetrics;

void nvml_stub_script(const char *name) {
    snprintf(path, sizeof path, "%s", name);
}

/* How often the library was called, nvmlErrorString apart: what a reading costs. */
long nvml_stub_calls(void) {
    return calls;
}

int nvml_stub_started(void) {
    return started;
}

static int lookup(const char *key, char *value, size_t size) {
    const char *name = path[0] ? path : getenv("NVML_STUB_SCRIPT");
    char line[4096];
    size_t length = strlen(key);
    int found = 0;
    FILE *file = name ? fopen(name, "r") : NULL;
    if (!file)
        return 0;
    while (!found && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        if (!strncmp(line, key, length) && line[length] == ' ') {
            snprintf(value, size, "%s", line + length + 1);
            found = 1;
        }
    }
    fclose(file);
    return found;
}

static long long number(const char *key, long long otherwise) {
    char value[256];
    return lookup(key, value, sizeof value) ? atoll(value) : otherwise;
}

static nvmlReturn_t error_of(const char *key) {
    char full[128];
    snprintf(full, sizeof full, "%s_error", key);
    return (nvmlReturn_t)number(full, SUCCESS);
}

/* Of one GPU: the handle is its index plus one. */
static nvmlReturn_t fact(nvmlDevice_t device, const char *key, char *value, size_t size) {
    char full[128];
    nvmlReturn_t error;
    calls++;
    if (!started)
        return UNINITIALIZED;
    if (number("generation", 0) != generation)
        return GPU_IS_LOST;
    snprintf(full, sizeof full, "%ld.%s", (long)device - 1, key);
    error = error_of(full);
    if (error)
        return error;
    return lookup(full, value, size) ? SUCCESS : NOT_SUPPORTED;
}

static nvmlReturn_t integer(nvmlDevice_t device, const char *key, long long *value) {
    char text[256];
    nvmlReturn_t result = fact(device, key, text, sizeof text);
    if (result == SUCCESS)
        *value = atoll(text);
    return result;
}

nvmlReturn_t nvmlInitWithFlags(unsigned flags) {
    nvmlReturn_t error = error_of("init");
    (void)flags;
    calls++;
    if (error)
        return error;
    started++;
    generation = number("generation", 0);
    return SUCCESS;
}

nvmlReturn_t nvmlInit_v2(void) {
    return nvmlInitWithFlags(0);
}

nvmlReturn_t nvmlShutdown(void) {
    calls++;
    if (!started)
        return UNINITIALIZED;
    started--;
    return error_of("shutdown");
}

const char *nvmlErrorString(nvmlReturn_t result) {
    switch (result) {
    case UNINITIALIZED: return "Uninitialized";
    case NOT_SUPPORTED: return "Not Supported";
    case 4: return "Insufficient Permissions";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case GPU_IS_LOST: return "GPU is lost";
    default: return "Unknown Error";
    }
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned length) {
    calls++;
    return lookup("driver", version, length) ? SUCCESS : DRIVER_NOT_LOADED;
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count) {
    nvmlReturn_t error = error_of("gpus");
    calls++;
    if (!started)
        return UNINITIALIZED;
    *count = (unsigned)number("gpus", 0);
    return error;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device) {
    char key[64];
    calls++;
    if (!started)
        return UNINITIALIZED;
    if (index >= (unsigned)number("gpus", 0))
        return INVALID_ARGUMENT;
    snprintf(key, sizeof key, "%u.handle", index);
    *device = (nvmlDevice_t)((long)index + 1);
    return error_of(key);
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned length) {
    return fact(device, "name", name, length);
}

nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *millijoules) {
    long long value;
    nvmlReturn_t result = integer(device, "energy_mj", &value);
    if (result == SUCCESS)
        *millijoules = (unsigned long long)value;
    return result;
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned *current, unsigned *pending) {
    long long value;
    nvmlReturn_t result = integer(device, "mig", &value);
    if (result == SUCCESS)
        *current = *pending = (unsigned)value;
    return result;
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned *milliwatts) {
    long long value;
    nvmlReturn_t result = integer(device, "power_mw", &value);
    if (result == SUCCESS)
        *milliwatts = (unsigned)value;
    return result;
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, Utilization *utilization) {
    long long value;
    nvmlReturn_t result = integer(device, "utilization", &value);
    if (result == SUCCESS) {
        utilization->gpu = (unsigned)value;
        utilization->memory = 0;
    }
    return result;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, Memory *memory) {
    long long value;
    nvmlReturn_t result = integer(device, "memory_bytes", &value);
    if (result == SUCCESS) {
        memory->total = memory->free = (unsigned long long)value;
        memory->used = 0;
    }
    return result;
}

/* `9.0` */
nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor) {
    char text[64];
    nvmlReturn_t result = fact(device, "capability", text, sizeof text);
    if (result == SUCCESS && sscanf(text, "%d.%d", major, minor) != 2)
        return INVALID_ARGUMENT;
    return result;
}

/* `PID:BYTES PID:BYTES …`; a `-` for bytes that are not available. */
nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count, Process *processes) {
    char text[4096], *rest, *word;
    unsigned room = *count, found = 0;
    nvmlReturn_t result = fact(device, "processes", text, sizeof text);
    if (result != SUCCESS)
        return result;
    for (word = strtok_r(text, " ", &rest); word; word = strtok_r(NULL, " ", &rest), found++) {
        char *bytes = strchr(word, ':');
        if (found >= room || !processes || !bytes)
            continue;
        processes[found].pid = (unsigned)atol(word);
        processes[found].used_bytes = bytes[1] == '-' ? ~0ULL : strtoull(bytes + 1, NULL, 10);
        processes[found].gpu_instance = processes[found].compute_instance = ~0U;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

nvmlReturn_t nvmlGpmQueryDeviceSupport(nvmlDevice_t device, GpmSupport *support) {
    long long value;
    nvmlReturn_t result = integer(device, "gpm", &value);
    if (result == SUCCESS)
        support->is_supported = (unsigned)value;
    return result;
}

/* A sample is the GPU that it was taken of. */
nvmlReturn_t nvmlGpmSampleAlloc(void **sample) {
    *sample = calloc(1, sizeof(nvmlDevice_t));
    return SUCCESS;
}

nvmlReturn_t nvmlGpmSampleFree(void *sample) {
    free(sample);
    return SUCCESS;
}

nvmlReturn_t nvmlGpmSampleGet(nvmlDevice_t device, void *sample) {
    *(nvmlDevice_t *)sample = device;
    return SUCCESS;
}

nvmlReturn_t nvmlGpmMetricsGet(GpmMetrics *wanted) {
    for (unsigned place = 0; place < wanted->count; place++) {
        GpmMetric *metric = &wanted->metrics[place];
        char key[64];
        long long value = 0;
        snprintf(key, sizeof key, "gpm_%u", metric->id);
        metric->result = integer(*(nvmlDevice_t *)wanted->second, key, &value);
        metric->value = (double)value;
    }
    return SUCCESS;
}
