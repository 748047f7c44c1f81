import { type BudgetKey, type BudgetUse, listBudgets, putBudget, removeBudget } from '@somagent/budget';
import { type Caller, type GovernedEnv, type Handlers, Problem } from '@somagent/governance';
import type { Context } from 'hono';
import type { QueryExecutorProvider } from 'kysely';
import type { budgetRoutes } from './budget-routes.ts';

/** What the handlers of budgets work with. */
export interface BudgetDependencies {
  /** A TenantDatabase with the tables of budgets and an outbox. */
  readonly database: { of(tenant: string): QueryExecutorProvider };
}

type BudgetRoutes = typeof budgetRoutes;

/** The handlers of budgets, of the caller's own tenant. */
export function createBudgetHandlers({
  database,
}: BudgetDependencies): Pick<Handlers<BudgetRoutes>, keyof BudgetRoutes> {
  return {
    listBudgets: async (context) => {
      const { tenant } = context.get('caller');
      const budgets = await listBudgets(database.of(tenant), tenant);
      return context.json({ budgets: budgets.map(viewOf) }, 200);
    },

    putBudget: async (context) => {
      const key = keyOf(context.get('caller'), context.req.valid('param'));
      const rows = database.of(key.tenant);
      await putBudget(rows, { ...key, ...context.req.valid('json') }, originOf(context));
      const same = ({ scope, id, period }: BudgetUse) => scope === key.scope && id === key.id && period === key.period;
      const found = (await listBudgets(rows, key.tenant)).find(same);
      if (found === undefined) throw new Problem('not-found', 'the budget was removed meanwhile');
      return context.json(viewOf(found), 200);
    },

    deleteBudget: async (context) => {
      const key = keyOf(context.get('caller'), context.req.valid('param'));
      const removed = await removeBudget(database.of(key.tenant), key, originOf(context));
      return context.json({ removed }, 200);
    },
  };
}

/** Another tenant does not exist for the caller. */
function keyOf({ tenant }: Caller, key: Omit<BudgetKey, 'tenant'>): BudgetKey {
  if (key.scope !== 'tenant' || key.id === tenant) return { tenant, ...key };
  throw new Problem('not-found', `tenant ${key.id} does not exist: yours is ${tenant}`);
}

function originOf(context: Context<GovernedEnv>) {
  const { kind, subject, client } = context.get('caller');
  return { actor: { kind, id: subject, client }, requestId: context.get('requestId') };
}

const viewOf = ({ tenant: _, renewsAt, ...budget }: BudgetUse) => ({
  ...budget,
  renewsAt: renewsAt?.toISOString() ?? null,
});
