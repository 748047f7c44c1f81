import { readFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { parse } from 'yaml';
import { ConfigError, projectName } from '../config.ts';

interface Declaration {
  readonly type: 'string' | 'integer' | 'boolean' | 'array';
  readonly default?: unknown;
}

/**
 * The configuration of a stack as the CLI would hand it to the program: the values of `Pulumi.<stack>.yaml` over the
 * defaults of `Pulumi.yaml`, all of them as text.
 * @param overrides values of the command line, without the project's name
 * @throws {ConfigError} naming each value that is not of its declared type
 */
export async function stackConfiguration(
  root: string,
  stack: string,
  overrides: Readonly<Record<string, string>> = {},
): Promise<Record<string, string>> {
  const project = readYaml(join(root, 'Pulumi.yaml')) as { config?: Record<string, Declaration> };
  const own = await readStack(root, stack);
  const declarations = project.config ?? {};
  const defaults = Object.entries(declarations).flatMap(([key, { default: value }]) =>
    value === undefined ? [] : [[qualified(key), value]],
  );
  const values: Record<string, unknown> = { ...Object.fromEntries(defaults), ...own };
  const problems = Object.entries(declarations).flatMap(([key, declaration]) =>
    mistyped(key, values[qualified(key)], declaration),
  );
  if (problems.length > 0)
    throw new ConfigError(problems.map((problem) => `${problem}; mend it in Pulumi.${stack}.yaml`));
  const texts = Object.entries(values).map(([key, value]) => [
    key,
    typeof value === 'string' ? value : JSON.stringify(value),
  ]);
  const given = Object.entries(overrides).map(([key, value]) => [qualified(key), value]);
  return Object.fromEntries([...texts, ...given]);
}

const qualified = (key: string): string => (key.includes(':') ? key : `${projectName}:${key}`);

async function readStack(root: string, stack: string): Promise<Record<string, unknown>> {
  const stacks = (await readdir(root)).flatMap((file) => /^Pulumi\.(.+)\.yaml$/.exec(file)?.[1] ?? []);
  if (!stacks.includes(stack))
    throw new ConfigError([`there is no stack '${stack}' (Pulumi.${stack}.yaml); there are ${stacks.join(', ')}`]);
  const { config = {} } = readYaml(join(root, `Pulumi.${stack}.yaml`)) as { config?: Record<string, unknown> };
  const encrypted = Object.entries(config).filter(
    ([, value]) => typeof value === 'object' && value !== null && 'secure' in value,
  );
  if (encrypted.length > 0) {
    throw new ConfigError(
      encrypted.map(
        ([key]) =>
          `${key} is encrypted, which only the Pulumi CLI can read; no value of ours is secret: write it in clear, or have the bootstrap Job generate it`,
      ),
    );
  }
  return Object.fromEntries(Object.entries(config).map(([key, value]) => [qualified(key), value]));
}

function readYaml(path: string): unknown {
  try {
    return parse(readFileSync(path, 'utf8')) ?? {};
  } catch (error) {
    throw new ConfigError([`${path} can't be read: ${error instanceof Error ? error.message : String(error)}`]);
  }
}

function mistyped(key: string, value: unknown, { type }: Declaration): string[] {
  if (value === undefined || isOfType(value, type)) return [];
  const article = /^[aeiou]/.test(type) ? 'an' : 'a';
  return [`${qualified(key)} is ${JSON.stringify(value)}, but must be ${article} ${type}`];
}

function isOfType(value: unknown, type: Declaration['type']): boolean {
  if (type === 'array') return Array.isArray(value);
  if (type === 'integer') return Number.isInteger(value) || (typeof value === 'string' && /^-?\d+$/.test(value));
  if (type === 'boolean') return typeof value === 'boolean' || value === 'true' || value === 'false';
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean';
}
