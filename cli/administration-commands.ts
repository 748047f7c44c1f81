import type { Command } from 'commander';
import type * as administration from './administration.ts';
import { positive } from './positive.ts';
import type { TargetOptions } from './target.ts';

/** Makes the surroundings of a command from its own options. */
export type MakeAdministration = (options: Partial<TargetOptions>) => administration.AdministrationContext;

type Add = (parent: Command, name: string, description: string) => Command;
interface Parts {
  readonly program: Command;
  readonly add: Add;
  readonly make: MakeAdministration;
}

/** Loaded by those who administer, not by help and completion. */
const load = (): Promise<typeof administration> => import('./administration.ts');

const reason = ['--reason <text>', 'why; it stands in the audit log'] as const;
const tenant = ['--tenant <name>', 'tenant that it is about (default: the only one that you see)'] as const;
const collect = (value: string, before: readonly string[] = []): string[] => [...before, value];

/**
 * Adds `soma tenant | user | key | training | halt | resume`.
 * @param target adds the options that every command about a running platform has
 */
export function addAdministrationCommands(
  program: Command,
  target: (command: Command) => Command,
  make: MakeAdministration,
): void {
  const add: Add = (parent, name, description) =>
    target(parent.command(name).description(description)).option(
      '--accounts <url>',
      'identity service (SOMA_ACCOUNTS_URL; default: of the stack)',
    );
  const parts = { program, add, make };
  addTenants(parts);
  addUsers(parts);
  addKeys(parts);
  addTraining(parts);
  addHalts(parts);
}

function addTenants({ program, add, make }: Parts): void {
  const group = program.command('tenant').description('tenants: create, suspend, restore');
  add(group, 'list', 'tenants that you see').action(async (options) => (await load()).listTenants(make(options)));
  add(group, 'create', 'create a tenant, or change its displayed name')
    .argument('<tenant>')
    .requiredOption('--name <text>', 'displayed name')
    .action(async (name, options) => (await load()).putTenant(make(options), name, options.name));
  for (const action of ['suspend', 'restore'] as const) {
    add(group, action, action === 'suspend' ? 'refuse every credential of a tenant' : 'undo a suspension')
      .argument('<tenant>')
      .requiredOption(...reason)
      .action(async (name, options) => (await load()).standTenant(make(options), action, name, options));
  }
}

function addUsers({ program, add, make }: Parts): void {
  const group = program.command('user').description('people of a tenant: create, change, suspend, restore');
  add(group, 'list', 'people of a tenant')
    .option(...tenant)
    .action(async (options) => (await load()).listUsers(make(options), options));
  add(group, 'create', 'create a person, or change roles, teams and address of one')
    .argument('<username>')
    .option(...tenant)
    .option('--email <address>', 'address')
    .option('--role <name>', 'role; may be repeated', collect)
    .option('--team <name>', 'team; may be repeated', collect)
    .action(async (username, options) => (await load()).putUser(make(options), username, options));
  for (const action of ['suspend', 'restore'] as const) {
    add(group, action, action === 'suspend' ? 'refuse every credential of a person' : 'undo a suspension')
      .argument('<username>')
      .option(...tenant)
      .requiredOption(...reason)
      .action(async (username, options) => (await load()).standUser(make(options), action, username, options));
  }
}

function addKeys({ program, add, make }: Parts): void {
  const group = program.command('key').description('API keys of a tenant: make, revoke');
  add(group, 'list', 'API keys of a tenant, never their secrets')
    .option(...tenant)
    .action(async (options) => (await load()).listKeys(make(options), options));
  add(group, 'create', 'make an API key; it is shown once')
    .argument('<name>')
    .requiredOption('--owner <username>', 'person that the key stands for')
    .requiredOption('--scope <capability>', 'capability, such as session:read; may be repeated', collect)
    .option('--days <count>', 'life of the key', positive, 90)
    .option(...tenant)
    .action(async (name, options) => (await load()).createKey(make(options), name, options));
  add(group, 'revoke', 'revoke an API key, everywhere at once')
    .argument('<id>')
    .option(...tenant)
    .requiredOption(...reason)
    .action(async (id, options) => (await load()).revokeKey(make(options), id, options));
}

function addTraining({ program, add, make }: Parts): void {
  const group = program.command('training').description('training mode of a tenant: two people unlock, one locks');
  add(group, 'show', 'training mode, and the proposal that waits')
    .option(...tenant)
    .action(async (options) => (await load()).showTraining(make(options), options));
  add(group, 'propose', 'propose to unlock training')
    .option(...tenant)
    .requiredOption(...reason)
    .option('--seconds <count>', 'how long the proposal waits', positive, 3600)
    .action(async (options) => (await load()).proposeUnlock(make(options), options));
  add(group, 'approve', 'approve a proposal of somebody else')
    .argument('<id>')
    .option(...tenant)
    .action(async (id, options) => (await load()).approveUnlock(make(options), id, options));
  add(group, 'lock', 'lock training at once')
    .option(...tenant)
    .requiredOption(...reason)
    .action(async (options) => (await load()).lockTraining(make(options), options));
}

function addHalts({ program, add, make }: Parts): void {
  const words = { halt: 'stop all agent work of a tenant, or of everything', resume: 'undo a halt' };
  for (const action of ['halt', 'resume'] as const) {
    add(program, action, words[action])
      .option('--tenant <name>', 'only this tenant (default: everything)')
      .requiredOption(...reason)
      .action(async (options) => (await load()).setHalt(make(options), action, options));
  }
}
