import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { CliFailure, exitCodes } from './failure.ts';

/** What the command reads of a stack's outputs (stacks/outputs.ts); names it does not know are left alone. */
const outputsSchema = z.object({
  gatewayUrl: z.string().min(1),
  issuerUrl: z.string().min(1),
  auditUrl: z.string().min(1).optional(),
  accountsUrl: z.string().min(1).optional(),
  clients: z.array(z.string()).default([]),
  regions: z.record(z.string(), z.unknown()).default({}),
});

export type Outputs = z.output<typeof outputsSchema>;

const folder = '.soma';

/** File in which a stack's outputs are kept, relative to the repository. */
export function outputsFile(root: string, stack: string): string {
  return join(root, folder, `outputs.${stack}.json`);
}

/** Stacks whose outputs were saved. */
export function knownStacks(root: string): string[] {
  if (!existsSync(join(root, folder))) return [];
  const names = readdirSync(join(root, folder)).map((name) => /^outputs\.(.+)\.json$/.exec(name)?.[1]);
  return names.filter((name) => name !== undefined);
}

/** The outputs of a stack, or undefined when it was never brought up from here. */
export function readOutputs(root: string, stack: string): Outputs | undefined {
  const file = outputsFile(root, stack);
  if (!existsSync(file)) return undefined;
  try {
    return outputsSchema.parse(JSON.parse(readFileSync(file, 'utf8')));
  } catch (error) {
    const reason = error instanceof z.ZodError ? z.prettifyError(error) : String(error);
    throw new CliFailure(`${file} cannot be read: ${reason}`, 'soma up writes it anew', exitCodes.usage);
  }
}
