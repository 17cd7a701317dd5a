"""Templates and scenarios for emergencies: the tasks BuildTemplates and TestScenarios."""
