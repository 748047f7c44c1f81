/** Whether a value of JSON has more levels than `most`: deeper ones overflow the stack of whoever writes them again. */
export function isDeeperThan(most: number, value: unknown): boolean {
  let level: unknown[] = [value];
  for (let depth = 0; depth <= most; depth += 1) {
    level = level.filter(isContainer).flatMap((container) => Object.values(container));
    if (level.length === 0) return false;
  }
  return true;
}

const isContainer = (value: unknown): value is object => typeof value === 'object' && value !== null;
