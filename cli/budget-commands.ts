import { type Command, InvalidArgumentError } from 'commander';
import type * as budget from './budget.ts';
import { CliFailure } from './failure.ts';
import type { SessionContext } from './session.ts';
import type { TargetOptions } from './target.ts';

/** Makes the surroundings of a command from its own options. */
export type MakeSession = (options: Partial<TargetOptions>) => SessionContext;

const load = (): Promise<typeof budget> => import('./budget.ts');

/** A limit on the command line: 0 stops everything. */
function amount(text: string): number {
  const value = Number(text);
  if (text.trim() !== '' && Number.isFinite(value) && value >= 0) return value;
  throw new InvalidArgumentError('give a number of at least 0');
}

/** Adds `soma budget list|set|remove`, `soma model list` and `soma chat`. */
export function addBudgetCommands(program: Command, target: (command: Command) => Command, make: MakeSession): void {
  const group = program.command('budget').description('what may be used at most: tokens and money');
  const add = (parent: Command, name: string, description: string) =>
    target(parent.command(name).description(description));
  const named = (command: Command) =>
    command
      .argument('<scope>', 'tenant, team, persona or session')
      .argument('<id>', 'its id, or * for each without a budget of its own; of the tenant its name')
      .argument('<period>', 'day, month or total');
  add(group, 'list', 'budgets of your tenant, with what is used and (+) reserved').action(async (options) =>
    (await load()).listBudgets(make(options)),
  );
  named(add(group, 'set', 'set a budget: what would exceed it is refused before it runs'))
    .option('--tokens <count>', 'tokens of prompts and answers', amount)
    .option('--dollars <amount>', 'US dollars', amount)
    .action(async (scope, id, period, options) => {
      if (options.tokens === undefined && options.dollars === undefined) {
        throw new CliFailure(
          'a budget without a limit limits nothing',
          'give --tokens <count>, --dollars <amount> or both',
        );
      }
      await (await load()).setBudget(make(options), { scope, id, period }, options);
    });
  named(add(group, 'remove', 'remove a budget')).action(async (scope, id, period, options) =>
    (await load()).removeBudget(make(options), { scope, id, period }),
  );
  const models = program.command('model').description('models that agents can ask');
  add(models, 'list', 'models that can be asked').action(async (options) => (await load()).listModels(make(options)));
  add(program, 'chat', 'ask a model one question, without a session')
    .argument('<question>')
    .option('--model <name>', 'model that answers', 'soma-tiny')
    .action(async (question, options) => (await load()).chat(make(options), options.model, question));
}
