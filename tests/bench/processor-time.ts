import { readFile } from 'node:fs/promises';

/** Jiffies of Linux's /proc per second. */
const tick = 100;

/** Processor time of a process until now, seconds. Other load on the machine hardly changes it. */
export async function processorTime(pid: number): Promise<number> {
  const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ')[1]?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) / tick;
}
