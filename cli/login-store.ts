import { createHash } from 'node:crypto';
import { chmodSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { CliFailure, exitCodes } from './failure.ts';

const loginSchema = z.object({
  issuer: z.string(),
  username: z.string(),
  accessToken: z.string(),
  refreshToken: z.string(),
  /** When the access token ends, milliseconds since the epoch. */
  expiresAt: z.number(),
});

/** A person who has signed in at an issuer. */
export type Login = z.output<typeof loginSchema>;

const lockPauseMs = 50;
const longestLockMs = 15_000;

type Environment = Readonly<Record<string, string | undefined>>;

/** Folder of the logins of this user (XDG Base Directory: state), or undefined where there is no home. */
export function loginFolder(env: Environment): string | undefined {
  if (env.XDG_STATE_HOME) return join(env.XDG_STATE_HOME, 'somagent', 'logins');
  return env.HOME ? join(env.HOME, '.local', 'state', 'somagent', 'logins') : undefined;
}

/** Logins of this user, one file for each issuer, readable by nobody else. */
export class LoginStore {
  readonly #folder: string | undefined;

  constructor(env: Environment) {
    this.#folder = loginFolder(env);
  }

  /** Who is signed in at an issuer; a file that cannot be read counts as nobody. */
  read(issuer: string): Login | undefined {
    if (this.#folder === undefined) return undefined;
    try {
      return loginSchema.parse(JSON.parse(readFileSync(this.#file(issuer), 'utf8')));
    } catch {
      return undefined;
    }
  }

  /** Keeps a login. The file is whole or not there, and never open to others, not even for a moment. */
  write(login: Login): void {
    const file = this.#file(login.issuer);
    const draft = `${file}.${process.pid}`;
    writeFileSync(draft, `${JSON.stringify(login)}\n`, { mode: 0o600, flag: 'w' });
    chmodSync(draft, 0o600);
    renameSync(draft, file);
  }

  remove(issuer: string): void {
    rmSync(this.#file(issuer), { force: true });
  }

  /** Works while no other command of this user does: a refresh token is good for one use. */
  async locked<T>(issuer: string, work: () => Promise<T>): Promise<T> {
    const lock = `${this.#file(issuer)}.lock`;
    const deadline = performance.now() + longestLockMs;
    while (!tryLock(lock)) {
      if (performance.now() > deadline) {
        throw new CliFailure(`another soma command holds ${lock}`, 'wait for it, or remove that file');
      }
      await sleep(lockPauseMs);
    }
    try {
      return await work();
    } finally {
      rmSync(lock, { force: true });
    }
  }

  #file(issuer: string): string {
    if (this.#folder === undefined) {
      throw new CliFailure('there is no folder to keep a login in', 'set HOME or XDG_STATE_HOME', exitCodes.usage);
    }
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
    return join(this.#folder, `${createHash('sha256').update(issuer).digest('hex').slice(0, 24)}.json`);
  }
}

/** Takes a lock that is free or whose owner has died. */
function tryLock(lock: string): boolean {
  try {
    writeFileSync(lock, String(process.pid), { flag: 'wx', mode: 0o600 });
    return true;
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
    if (!ownerLives(lock)) rmSync(lock, { force: true });
    return false;
  }
}

function ownerLives(lock: string): boolean {
  try {
    const owner = Number(readFileSync(lock, 'utf8'));
    // A lock without a number is one that is just being written.
    return owner === 0 || process.kill(owner, 0);
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}
