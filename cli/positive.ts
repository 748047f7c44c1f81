import { InvalidArgumentError } from 'commander';

/** Checks a whole number of at least 1 on the command line. */
export function positive(text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  throw new InvalidArgumentError('give a whole number of at least 1');
}
