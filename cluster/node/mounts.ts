import { readFileSync } from 'node:fs';
import { run, succeeds } from '../command.ts';

/** Mount points at or below a folder, deepest first. */
export function mountsBelow(folder: string, mountinfo = readFileSync('/proc/self/mountinfo', 'utf8')): string[] {
  return mountinfo
    .split('\n')
    .map((line) => decode(line.split(' ')[4] ?? ''))
    .filter((point) => point === folder || point.startsWith(`${folder}/`))
    .sort((a, b) => b.length - a.length);
}

/** The kernel writes space, tab, newline and backslash of a path as octal numbers. */
function decode(path: string): string {
  return path.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

/** Unmounts everything at or below a folder; what is still busy is detached and goes with its last user. */
export async function unmountBelow(folder: string): Promise<void> {
  for (const point of mountsBelow(folder)) {
    if (!(await succeeds('umount', [point]))) await run('umount', ['--lazy', point]);
  }
}
