import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { Failure, messageOf } from '../failure.ts';
import { splitStatements } from './statements.ts';

/** One version of Temporal's schema, as its manifest describes it. */
export interface SchemaVersion {
  readonly version: string;
  readonly minCompatibleVersion: string;
  readonly description: string;
  /** MD5 of the manifest file, in hexadecimal: what Temporal's tool writes into its history. */
  readonly manifestMd5: string;
  readonly statements: readonly string[];
}

const manifest = z.object({
  CurrVersion: z.string().min(1),
  MinCompatibleVersion: z.string().min(1),
  Description: z.string(),
  SchemaUpdateCqlFiles: z.array(z.string()).default([]),
  AllowNoCqlFiles: z.boolean().default(false),
});

/** Compares dotted versions by number: 1.2 comes before 1.10. */
export function compareVersions(left: string, right: string): number {
  const a = left.split('.').map(Number);
  const b = right.split('.').map(Number);
  for (let index = 0; index < Math.max(a.length, b.length); index += 1) {
    const difference = (a[index] ?? 0) - (b[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

/** Reads the folders `v1.0`, `v1.1` ... in order. @throws Failure that names the file and what is wrong with it. */
export async function readVersions(directory: string): Promise<SchemaVersion[]> {
  let names: string[];
  try {
    names = await readdir(directory);
  } catch (error) {
    throw new Failure(
      `Temporal schema: cannot read ${directory}: ${messageOf(error)}`,
      'set SCHEMA_DIR to the folder of the official schema',
    );
  }
  const versions = names.filter((name) => /^v\d+(\.\d+)*$/.test(name)).map((name) => name.slice(1));
  if (versions.length === 0) {
    throw new Failure(
      `Temporal schema: ${directory} holds no version folder`,
      'set SCHEMA_DIR to the folder of the official schema',
    );
  }
  return Promise.all(
    versions.sort(compareVersions).map((version) => readVersion(join(directory, `v${version}`), version)),
  );
}

async function readVersion(directory: string, version: string): Promise<SchemaVersion> {
  const bytes = await readFile(join(directory, 'manifest.json'));
  const parsed = manifest.parse(JSON.parse(bytes.toString('utf8')));
  const current = parsed.CurrVersion.replace(/^v/, '');
  if (current !== version) throw broken(directory, `its manifest says version ${current}`);
  const scripts = await Promise.all(parsed.SchemaUpdateCqlFiles.map((file) => readFile(join(directory, file), 'utf8')));
  const statements = scripts.flatMap(splitStatements);
  if (statements.length === 0 && !parsed.AllowNoCqlFiles) throw broken(directory, 'it has no statement');
  return {
    version,
    minCompatibleVersion: parsed.MinCompatibleVersion.replace(/^v/, ''),
    description: parsed.Description,
    manifestMd5: createHash('md5').update(bytes).digest('hex'),
    statements,
  };
}

function broken(directory: string, reason: string): Failure {
  return new Failure(
    `Temporal schema: ${directory}: ${reason}`,
    'restore the official schema of the pinned Temporal version',
  );
}
