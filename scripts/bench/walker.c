/* The least that a scan has to do: walk a folder, open what is in each adapter, and read its config and its header. */

#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static unsigned long long bytes, files;
static char *buffer;
static size_t room;

static void take(int file, uint64_t length) {
    if (length > room) {
        buffer = realloc(buffer, room = length);
    }
    ssize_t got;
    while (length > 0 && (got = read(file, buffer, length)) > 0) {
        length -= got;
        bytes += got;
    }
}

static void look(const char *path, int is_config) {
    int file = open(path, O_RDONLY);
    struct stat about;
    uint64_t length;
    if (file < 0) {
        return;
    }
    files++;
    if (is_config && fstat(file, &about) == 0) {
        take(file, about.st_size);
    } else if (!is_config && read(file, &length, 8) == 8) { /* little endian, as the machine is */
        bytes += 8;
        take(file, length);
    }
    close(file);
}

static void walk(const char *folder) {
    DIR *entries = opendir(folder);
    struct dirent *entry;
    char path[4096];
    while (entries && (entry = readdir(entries))) {
        if (entry->d_name[0] == '.') {
            continue;
        }
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (entry->d_type == DT_DIR) {
            walk(path);
        } else if (!strcmp(entry->d_name, "adapter_config.json")) {
            look(path, 1);
        } else if (!strcmp(entry->d_name, "adapter_model.safetensors")) {
            look(path, 0);
        }
    }
    if (entries) {
        closedir(entries);
    }
}

int main(int count, char **arguments) {
    for (int at = 1; at < count; at++) {
        walk(arguments[at]);
    }
    printf("%llu files, %llu bytes\n", files, bytes);
    return 0;
}
