export { type Budget, type BudgetKey, type BudgetUse, listBudgets, putBudget, removeBudget } from './administration.ts';
export { BudgetBatches, type BudgetBatchesOptions } from './batches.ts';
export {
  type Actual,
  type BudgetRequest,
  type Outcome,
  type Period,
  periods,
  type Refusal,
  type Reservation,
  type ReserveOptions,
  release,
  reserve,
  type Scope,
  scopes,
  settle,
} from './budget.ts';
export { BudgetLeases, type BudgetLeasesOptions, type Confirmation } from './leases.ts';
export {
  budgetKeysMigration,
  budgetLeaseMigration,
  budgetMigration,
  budgetTables,
  grantBudgets,
  recallChannel,
} from './migration.ts';
export { BudgetSweeper, type BudgetSweeperOptions, returnExpired } from './sweeper.ts';
