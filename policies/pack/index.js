// The entry of the Pulumi CLI, which requires it: so it may not await at its top. Node 24 runs TypeScript as it is; an
// older Node needs tsx to, without a build step.
async function serve() {
  if (!process.features.typescript) (await import('tsx/esm/api')).register();
  const { servePack } = await import('./pack.ts');
  await servePack();
}

serve().catch((error) => {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
});
