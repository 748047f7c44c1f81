import { z } from 'zod';
import { Gateway } from './gateway.ts';
import { formatTable } from './print.ts';
import type { SessionContext } from './session.ts';

const amounts = z.looseObject({ tokens: z.number(), costMicros: z.number() });
const budget = z.looseObject({
  scope: z.string(),
  id: z.string(),
  period: z.string(),
  tokens: z.number().nullable(),
  costMicros: z.number().nullable(),
  used: amounts,
  reserved: amounts,
  renewsAt: z.string().nullable(),
});
type Budget = z.output<typeof budget>;
const budgets = z.looseObject({ budgets: z.array(budget) });
const removal = z.looseObject({ removed: z.boolean() });
const models = z.looseObject({ data: z.array(z.looseObject({ id: z.string(), owned_by: z.string() })) });
const completion = z.looseObject({
  choices: z.array(z.looseObject({ message: z.looseObject({ content: z.string().nullable() }) })),
});

/** Names a budget: `team blue day`. */
export interface BudgetName {
  readonly scope: string;
  readonly id: string;
  readonly period: string;
}

/** Limits as the command line has them. */
export interface Limits {
  readonly tokens?: number;
  /** US dollars. */
  readonly dollars?: number;
}

const pathOf = ({ scope, id, period }: BudgetName): string =>
  `/v1/budgets/${[scope, id, period].map(encodeURIComponent).join('/')}`;

const signIn = async (context: SessionContext): Promise<Gateway> =>
  Gateway.signIn(await context.target(), context.signal);

function print(context: SessionContext, value: unknown, text: string): void {
  context.write(context.json ? `${JSON.stringify(value)}\n` : text);
}

/** Prints the budgets of the tenant with their use. */
export async function listBudgets(context: SessionContext): Promise<void> {
  const page = await (await signIn(context)).json(budgets, 'GET', '/v1/budgets');
  print(context, page, tableOf(page.budgets));
}

/** Sets a budget and prints it. */
export async function setBudget(context: SessionContext, name: BudgetName, { tokens, dollars }: Limits): Promise<void> {
  const body = { tokens: tokens ?? null, costMicros: dollars === undefined ? null : Math.round(dollars * 1e6) };
  const set = await (await signIn(context)).json(budget, 'PUT', pathOf(name), { body });
  print(context, set, tableOf([set]));
}

/** Removes a budget. */
export async function removeBudget(context: SessionContext, name: BudgetName): Promise<void> {
  const result = await (await signIn(context)).json(removal, 'DELETE', pathOf(name));
  const { scope, id, period } = name;
  print(context, result, `${result.removed ? 'removed' : 'there is no'} ${period} budget of ${scope} ${id}\n`);
}

/** Prints the models that can be asked. */
export async function listModels(context: SessionContext): Promise<void> {
  const page = await (await signIn(context)).json(models, 'GET', '/v1/models');
  const rows = page.data.map(({ id, owned_by }) => [id, owned_by]);
  print(context, page, formatTable(['MODEL', 'PROVIDER'], rows));
}

/** Asks a model one question, without a session. */
export async function chat(context: SessionContext, model: string, question: string): Promise<void> {
  const body = { model, messages: [{ role: 'user', content: question }] };
  const answer = await (await signIn(context)).json(completion, 'POST', '/v1/chat/completions', { body });
  print(context, answer, `${answer.choices[0]?.message.content ?? ''}\n`);
}

const dollars = (micros: number): string => `$${(micros / 1e6).toFixed(micros % 10_000 === 0 ? 2 : 6)}`;

function tableOf(rows: readonly Budget[]): string {
  const limitOf = (used: number, reserved: number, limit: number | null, show: (value: number) => string) =>
    limit === null ? '-' : `${show(used)}${reserved > 0 ? ` (+${show(reserved)})` : ''} of ${show(limit)}`;
  const lines = rows.map(({ scope, id, period, tokens, costMicros, used, reserved, renewsAt }) => [
    scope,
    id,
    period,
    limitOf(used.tokens, reserved.tokens, tokens, String),
    limitOf(used.costMicros, reserved.costMicros, costMicros, dollars),
    renewsAt ?? 'never',
  ]);
  return formatTable(['SCOPE', 'ID', 'PERIOD', 'TOKENS', 'MONEY', 'RENEWS'], lines);
}
