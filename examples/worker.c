// An environment in C, by docs/bridge.md: shows numbers and rewards naming their sign.
// cc -O2 -o worker examples/worker.c && dreamer train --configs size1m --task exec:./worker
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct slot {
  int32_t reset, sign;
  float number, reward;
  uint8_t first, last, terminal, rest[45];
};

int main(void) {
  char byte, path[] = "/dev/shm/worker-XXXXXX";
  int asks = dup(0), answers = dup(1), left = 0, file = mkstemp(path);
  dup2(2, 1);  // From here on printf goes to the log.
  do if (read(asks, &byte, 1) != 1) return 1;  // Nothing in the question matters here.
  while (byte != '\n');
  if (file < 0 || ftruncate(file, sizeof(struct slot))) return 1;
  struct slot *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (s == MAP_FAILED) return 1;
  dprintf(answers, "{\"version\":2,\"slots\":1,\"memory\":\"%s\",\"stride\":64,\"act\":{"
    "\"reset\":{\"dtype\":\"bool\",\"shape\":[],\"offset\":0},"
    "\"sign\":{\"dtype\":\"int32\",\"shape\":[],\"low\":0,\"high\":2,\"offset\":4}},\"obs\":{"
    "\"number\":{\"dtype\":\"float32\",\"shape\":[],\"offset\":8},"
    "\"reward\":{\"dtype\":\"float32\",\"shape\":[],\"offset\":12},"
    "\"is_first\":{\"dtype\":\"bool\",\"shape\":[],\"offset\":16},"
    "\"is_last\":{\"dtype\":\"bool\",\"shape\":[],\"offset\":17},"
    "\"is_terminal\":{\"dtype\":\"bool\",\"shape\":[],\"offset\":18}}}\n", path);
  while (read(asks, &byte, 1) == 1) {  // Always slot 0.
    s->first = s->reset || left == 0;
    s->reward = !s->first && s->sign == (s->number > 0);
    left = s->first ? 10 : left - 1;
    s->last = left == 0;
    s->number = rand() / (RAND_MAX / 2.0f) - 1;
    if (write(answers, &byte, 1) != 1) return 1;
  }
}
