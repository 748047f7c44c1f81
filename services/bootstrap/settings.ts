import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { Failure, messageOf } from './failure.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

export interface Credentials {
  readonly username: string;
  readonly password: string;
}

function describeIssues(error: z.ZodError): string {
  return error.issues.map((issue) => `${issue.path.join('.') || '(whole)'}: ${issue.message}`).join('; ');
}

/** Reads settings from the environment. @throws Failure that names every wrong variable. */
export function readSettings<T>(schema: z.ZodType<T>, env: Environment): T {
  const parsed = schema.safeParse(env);
  if (parsed.success) return parsed.data;
  const names = [...new Set(parsed.error.issues.map((issue) => String(issue.path[0])))].join(', ');
  throw new Failure(`environment: ${describeIssues(parsed.error)}`, `set ${names} on the Job's container`);
}

async function readText(path: string, purpose: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw new Failure(
      `${purpose}: cannot read ${path}: ${messageOf(error)}`,
      `mount the ConfigMap or Secret that holds ${path}`,
      { cause: error },
    );
  }
}

/** Reads a JSON file and checks its shape. @throws Failure that names the file and the field. */
export async function readJson<T>(schema: z.ZodType<T>, path: string): Promise<T> {
  const text = await readText(path, 'plan');
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Failure(`${path} is not JSON: ${messageOf(error)}`, 'correct the mounted file', { cause: error });
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new Failure(`${path}: ${describeIssues(parsed.error)}`, 'correct the field in the mounted file');
}

/** Reads a mounted password Secret: the files `username` and `password` of a folder. */
export async function readCredentials(directory: string): Promise<Credentials> {
  const [username, password] = await Promise.all([
    readText(join(directory, 'username'), 'credentials'),
    readText(join(directory, 'password'), 'credentials'),
  ]);
  if (username === '' || password === '') {
    throw new Failure(`credentials: an empty file in ${directory}`, 'delete the Secret and run the secrets Job again');
  }
  return { username, password };
}

/** Reads a mounted PEM file. */
export function readPem(path: string): Promise<string> {
  return readText(path, 'certificate');
}

/** How long a command waits for the server it depends on. */
export const waitSettings = { WAIT_SECONDS: z.coerce.number().positive().default(300) };
